"""The paper's figures 1, 2 and 4 from the networks of a run, with the numbers that they show.

Each is drawn for the run's first seed, on its own evaluation images.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from torch import Tensor, nn

from reference_training.config import SmallRun
from reference_training.data.pairs import normalised
from reference_training.evaluation.trained import Trained, degraded, look
from reference_training.experiments import stages
from reference_training.methods.base import VANILLA
from reference_training.methods.inserted import Inserted
from reference_training.methods.trainings import method_of
from reference_training.networks.resnet import ResNet
from reference_training.paper.experiments import Experiment, Row
from reference_training.reporting.blocks import Block, Paragraph, Picture, Table
from reference_training.reporting.figures import Theme, picture
from reference_training.runtime.files import write_atomically, write_json
from ulfd_torch import FeatureTap

CLASSES, EACH = 5, 50  # of Fig. 1
PERPLEXITY = 30
CONTRAST = ("contrast", 3)
BLUR = ("gaussian_blur", 5)
HISTOGRAMS = ("spatter", "motion_blur")
SEVERITIES = (1, 3, 5)
Draw = Callable[[Experiment, SmallRun, Path], list[Block]]


def _networks(experiment: Experiment, run: SmallRun) -> list[tuple[Row, Trained]]:
    return [(row, stages.trained(run, run.seeds[0], method_of(row))) for row in experiment.rows]


def _picture(path: Path, caption: str, draw: Callable[..., Figure]) -> Picture:
    drawn = picture(path.name, caption, draw)
    write_atomically(path, drawn.png)
    return drawn


def _figure(theme: Theme, rows: int, columns: int, size: float) -> tuple[Figure, Any]:
    figure = Figure(
        figsize=(columns * size, rows * size), facecolor=theme.page, layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_facecolor(theme.page)
        axes.tick_params(colors=theme.ink, labelsize=7)
        axes.title.set_color(theme.ink)
        for spine in axes.spines.values():
            spine.set_color(theme.grid)
    return figure, grid


@torch.no_grad()
def _in_parts(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([function(normalised(rows)) for rows in images.split(500)])


def closeness(clean: Tensor, shown: Tensor, labels: Tensor) -> float:
    """How far a degraded image moves, in units of how far apart the classes are.

    mean ‖f(x) − f(x̃)‖ / mean ‖μ_a − μ_b‖ over the pairs of classes' means on clean images.

    Args:
        clean, shown: logits of the same images (N, D).
        labels: (N,).
    """
    means = torch.stack([clean[labels == label].mean(0) for label in labels.unique()])
    between = torch.pdist(means).mean()
    return float((clean - shown).norm(dim=1).mean() / between)


def tsne(experiment: Experiment, run: SmallRun, folder: Path) -> list[Block]:
    """Fig. 1: logits of clean images and of the same at contrast 3, five classes."""
    test = stages.test_set(run)
    generator = torch.Generator().manual_seed(run.seeds[0])
    kinds = torch.randperm(test.classes, generator=generator)[:CLASSES]
    chosen = torch.cat([torch.nonzero(test.labels == kind)[:EACH, 0] for kind in kinds])
    labels = test.labels[chosen]
    shown = degraded(test.images, *CONTRAST, run.frost)[chosen]
    clean = test.images[chosen]
    clouds, numbers = {}, {}
    for row, one in _networks(experiment, run):
        both = [_in_parts(one.model, images) for images in (clean, shown)]
        numbers[row.label] = closeness(both[0], both[1], labels)
        points = TSNE(
            perplexity=min(PERPLEXITY, len(chosen) // 2), random_state=0, init="pca"
        ).fit_transform(torch.cat(both).numpy())
        clouds[row.label] = points.reshape(2, len(chosen), 2)

    def draw(theme: Theme) -> Figure:
        figure, grid = _figure(theme, 1, len(clouds), 3.2)
        for axes, (label, points) in zip(grid.flat, clouds.items(), strict=True):
            axes.set_title(f"{label}: {numbers[label]:.3f}", fontsize=10)
            for number, kind in enumerate(kinds):
                colour = theme.curves[number % len(theme.curves)]
                of_class = (labels == kind).numpy()
                for part, marker in zip(points, ("o", "x"), strict=True):
                    axes.scatter(*part[of_class].T, s=9, marker=marker, color=colour, lw=0.8)
            axes.set_xticks([])
            axes.set_yticks([])
        return figure

    write_json(folder / "figure.json", {"distance over distance between classes": numbers})
    caption = (
        f"t-SNE (perplexity {PERPLEXITY}, seed 0) of the logits of {CLASSES} classes, clean (o) "
        f"and at {CONTRAST[0]} {CONTRAST[1]} (x). The number: how far an image's logits move, over "
        "the mean distance between the classes; smaller is closer."
    )
    return [_picture(folder / "tsne.png", caption, draw)]


def shallow_feature(model: nn.Module, images: Tensor) -> Tensor:
    """The shallow feature (N, C, H, W), as the network's next layer sees it.

    Where a module is inserted behind the layer, as DDP's, that is what the module makes of it.
    """
    if isinstance(model, Inserted):
        return _in_parts(lambda rows: model.inserted(model.before(rows)), images)
    with FeatureTap(model, ResNet.shallow_layer) as tap:
        return _in_parts(lambda rows: (model(rows), tap.take())[1], images)


def differences(experiment: Experiment, run: SmallRun, folder: Path) -> list[Block]:
    """Fig. 2: shallow features of a clean and of a blurred image, and what is left between them.

    The reference is the feature that the method learns from: DDP's is the vanilla network's, ours
    the network's own.
    """
    test = stages.test_set(run)
    image = test.images[:1]
    shown = degraded(test.images, *BLUR, run.frost)
    vanilla = stages.trained(run, run.seeds[0], VANILLA).model
    maps: dict[str, list[Tensor]] = {}
    numbers = {}
    for row, one in _networks(experiment, run):
        reference = vanilla if row.training == "ddp" else one.model
        before = shallow_feature(vanilla, test.images), shallow_feature(vanilla, shown)
        after = shallow_feature(reference, test.images), shallow_feature(one.model, shown)
        numbers[row.label] = {
            "vanilla": _difference(*before),
            "reconstructed": _difference(*after),
        }
        maps[row.label] = [
            after[0][0].mean(0),
            before[1][0].mean(0),
            after[1][0].mean(0),
            (after[0][0] - after[1][0]).abs().mean(0),
        ]

    def draw(theme: Theme) -> Figure:
        titles = ("clean", "degraded, vanilla", "degraded, this network", "|difference|")
        figure, grid = _figure(theme, len(maps), 1 + len(titles), 1.9)
        for line, (label, features) in zip(grid, maps.items(), strict=True):
            line[0].imshow(torch.cat([image[0], shown[0]], 2).permute(1, 2, 0).numpy())
            line[0].set_title("clean and blurred", fontsize=8)
            line[0].set_ylabel(label, color=theme.ink)
            for axes, title, feature in zip(line[1:], titles, features, strict=True):
                axes.imshow(feature.numpy(), cmap="viridis")
                axes.set_title(title, fontsize=8)
            for axes in line:
                axes.set_xticks([])
                axes.set_yticks([])
        return figure

    write_json(folder / "figure.json", numbers)
    caption = (
        f"Shallow features under {BLUR[0].replace('_', ' ')} {BLUR[1]}, mean over the channels. "
        "Relative difference over all images: "
        + "; ".join(
            f"{label} {found['reconstructed']:.3f} (vanilla {found['vanilla']:.3f})"
            for label, found in numbers.items()
        )
        + "."
    )
    return [_picture(folder / "differences.png", caption, draw)]


def _difference(clean: Tensor, shown: Tensor) -> float:
    """Mean absolute difference over the mean absolute clean feature."""
    return float((clean - shown).abs().mean() / clean.abs().mean())


def uncertainty(experiment: Experiment, run: SmallRun, folder: Path) -> list[Block]:
    """Fig. 4: histograms of the images' mean θ under two corruptions, severities 1, 3 and 5."""
    test = stages.test_set(run)
    ((_, one),) = _networks(experiment, run)
    theta: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, float]] = {}
    for corruption in HISTOGRAMS:
        for severity in SEVERITIES:
            shown = degraded(test.images, corruption, severity, run.frost)
            logits, said = look(one, shown, most=len(shown))
            assert said is not None  # ULFD has a UEM
            sigma = said.log_variance.double()
            name = f"{corruption} {severity}"
            theta[name] = (sigma / 2).exp().flatten(1).mean(1)
            numbers[name] = {
                "theta": float(theta[name].mean()),
                "variance": float(sigma.exp().mean()),
                "top1": float((logits.argmax(1) == test.labels).double().mean()),
            }

    def draw(theme: Theme) -> Figure:
        figure, grid = _figure(theme, 1, len(HISTOGRAMS), 3.4)
        for axes, corruption in zip(grid.flat, HISTOGRAMS, strict=True):
            axes.set_title(corruption.replace("_", " "), fontsize=10)
            for number, severity in enumerate(SEVERITIES):
                name = f"{corruption} {severity}"
                label = f"severity {severity}, top-1 {numbers[name]['top1']:.1%}"
                colour = theme.curves[number]
                axes.hist(theta[name].numpy(), 40, histtype="step", color=colour, label=label)
            axes.set_xlabel("θ = exp(σ/2), mean over an image", color=theme.ink, fontsize=8)
            axes.legend(fontsize=7, labelcolor=theme.ink, facecolor=theme.page)
        return figure

    write_json(folder / "figure.json", numbers)
    table = Table(
        ("Corruption, severity", "mean θ = exp(σ/2)", "mean θ² = exp(σ)", "top-1, %"),
        tuple(
            (name, f"{at['theta']:.4f}", f"{at['variance']:.4f}", f"{100 * at['top1']:.1f}")
            for name, at in numbers.items()
        ),
        f"The numbers, {len(test.labels)} images each",
    )
    histograms = _picture(
        folder / "uncertainty.png",
        "Predicted uncertainty by severity. The paper's axis is rescaled: only the order counts.",
        draw,
    )
    return [histograms, Paragraph(_rising(numbers)), table]


def _rising(numbers: Mapping[str, Mapping[str, float]]) -> str:
    words = []
    for corruption in HISTOGRAMS:
        row = [numbers[f"{corruption} {severity}"]["theta"] for severity in SEVERITIES]
        rises = all(low < high for low, high in pairwise(row))
        words.append(f"{corruption.replace('_', ' ')} {'rises' if rises else 'does not rise'}")
    return f"The mean θ with severity: {', '.join(words)} at every step."


FIGURES: Mapping[str, Draw] = {
    "tsne": tsne,
    "differences": differences,
    "uncertainty": uncertainty,
}
"""A new figure is one function and one entry."""
