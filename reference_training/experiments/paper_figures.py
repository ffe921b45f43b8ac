"""The paper's figures 1, 2 and 4 from a run's networks and images, with the numbers that they show.

Whether the run is a small one or at full scale, the drawing does not know; see `Material`.
"""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from reference_training.data.samples import EvaluationData, EvaluationSet
from reference_training.evaluation.calibration import mean_theta
from reference_training.evaluation.loop import Batches, predictions
from reference_training.evaluation.trained import Trained, said_of
from reference_training.methods.inserted import Inserted
from reference_training.paper.experiments import Experiment, Row
from reference_training.reporting.blocks import Block, Paragraph, Table
from reference_training.reporting.figures import COLOURS, GRID, INK, PAGE, picture
from reference_training.runtime.errors import RunError
from ulfd_torch import FeatureTap

CLASSES, EACH = 5, 50  # of Fig. 1
PERPLEXITY = 30
CONTRAST = ("contrast", 3)
BLUR = ("gaussian_blur", 5)
HISTOGRAMS = ("spatter", "motion_blur")
SEVERITIES = (1, 3, 5)
BINS = 40  # of a histogram of many images


@dataclass(frozen=True)
class Material:
    """What figures are drawn from: networks in eval mode, and the images they are shown."""

    _: KW_ONLY
    network: Callable[[Row], Trained]
    """Of a row, trained."""
    vanilla: Callable[[], Any]
    """The `Classifier` that the rows' training begins with, of their network."""
    data: EvaluationData
    preprocess: Callable[[Tensor], Tensor]
    """uint8 (B, 3, H, W) to the networks' input."""
    evaluated: Tensor
    """int64 (N,): the positions of all images."""
    sample: Tensor
    """int64 (n,): of those on which features are compared."""
    batch: int
    """Images that go through a network together."""
    seed: int
    """By which Fig. 1's classes are drawn."""
    device: torch.device | str = "cpu"
    """Where the networks are."""
    workers: int = 0

    def inputs(self, positions: Tensor, place: EvaluationSet | None = None) -> Batches:
        """Images as the networks see them; without a corruption and severity clean ones."""
        samples = self.data.samples(place or (self.data.clean_sets[0], 0))

        def prepare(images: Tensor, rows: Tensor) -> Tensor:
            return self.preprocess(samples.degrade(images.to(self.device), rows))

        return Batches(samples.images, positions, self.batch, prepare, self.workers)

    def shown(self, position: Tensor, place: EvaluationSet | None = None) -> Tensor:
        """The image at a position, (1,), before it is preprocessed: uint8 (3, H, W)."""
        as_it_is = replace(self, preprocess=lambda images: images, workers=0)
        return next(iter(as_it_is.inputs(position, place)))[0].cpu()


class Drawn(NamedTuple):
    """A figure: how many images it shows, its numbers, and the blocks of its page."""

    images: int
    numbers: Mapping[str, Any]
    blocks: list[Block]


def _figure(rows: int, columns: int, size: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(columns * size, rows * size), facecolor=PAGE, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_facecolor(PAGE)
        axes.tick_params(colors=INK, labelsize=7)
        axes.title.set_color(INK)
        for spine in axes.spines.values():
            spine.set_color(GRID)
    return figure, grid


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


def tsne(experiment: Experiment, material: Material) -> Drawn:
    """Fig. 1: logits of clean images and of the same at contrast 3, five classes."""
    from sklearn.manifold import TSNE  # slow to import, and this figure alone needs it

    data = material.data
    generator = torch.Generator().manual_seed(material.seed)
    kinds = torch.randperm(data.classes, generator=generator)[:CLASSES]
    chosen = torch.cat([torch.nonzero(data.labels == kind)[:EACH, 0] for kind in kinds])
    labels = data.labels[chosen]
    clouds, numbers = {}, {}
    for row in experiment.rows:
        model = material.network(row).model
        both = [
            torch.cat([logits.cpu() for logits, _ in predictions(model, inputs)])
            for inputs in (material.inputs(chosen), material.inputs(chosen, CONTRAST))
        ]
        numbers[row.label] = closeness(both[0], both[1], labels)
        points = TSNE(
            perplexity=min(PERPLEXITY, len(chosen) // 2), random_state=0, init="pca"
        ).fit_transform(torch.cat(both).numpy())
        clouds[row.label] = points.reshape(2, len(chosen), 2)

    figure, grid = _figure(1, len(clouds), 3.2)
    for axes, (label, points) in zip(grid.flat, clouds.items(), strict=True):
        axes.set_title(f"{label}: {numbers[label]:.3f}", fontsize=10)
        for number, kind in enumerate(kinds):
            colour = COLOURS[number % len(COLOURS)]
            of_class = (labels == kind).numpy()
            for part, marker in zip(points, ("o", "x"), strict=True):
                axes.scatter(*part[of_class].T, s=9, marker=marker, color=colour, lw=0.8)
        axes.set(xticks=[], yticks=[])
    caption = (
        f"t-SNE (perplexity {PERPLEXITY}, seed 0) of the logits of {len(chosen)} images of "
        f"{len(kinds)} classes, clean (o) and at {CONTRAST[0]} {CONTRAST[1]} (x). The number: how "
        "far an image's logits move, over the mean distance between the classes; smaller is closer."
    )
    said = {"distance over distance between classes": numbers}
    return Drawn(len(chosen), said, [picture("tsne.png", caption, figure)])


@torch.no_grad()
def shallow_feature(model: Any, inputs: Tensor) -> Tensor:
    """The shallow feature (B, C, H, W) of a `Classifier`, as the network's next layer sees it.

    Where a module is inserted behind the layer, as DDP's, that is what the module makes of it.
    """
    if isinstance(model, Inserted) and model.layer == model.network.shallow_layer:
        return model.inserted(model.before(inputs))
    with FeatureTap(model, model.shallow_layer) as tap:
        model(inputs)
        return tap.take()


def differences(experiment: Experiment, material: Material) -> Drawn:
    """Fig. 2: shallow features of a clean and of a blurred image, and what is left between them.

    The reference is the feature that the method learns from: DDP's is the vanilla network's, ours
    the network's own. The number: the mean absolute difference over the mean absolute clean
    feature.
    """
    sample = material.sample
    pair = [material.shown(sample[:1], place) for place in (None, BLUR)]
    vanilla = material.vanilla()
    maps: dict[str, list[Tensor]] = {}
    numbers = {}
    for row in experiment.rows:
        model = material.network(row).model
        reference = vanilla if row.training == "ddp" else model
        means = torch.zeros(2, 2)  # vanilla, reconstructed: of |difference|, of |clean|
        for clean, shown in zip(
            material.inputs(sample), material.inputs(sample, BLUR), strict=True
        ):
            before = shallow_feature(vanilla, clean), shallow_feature(vanilla, shown)
            after = shallow_feature(reference, clean), shallow_feature(model, shown)
            for mean, (one, other) in zip(means, (before, after), strict=True):
                found = torch.stack([(one - other).abs().mean(), one.abs().mean()])
                mean += len(clean) / len(sample) * found.cpu()
            if row.label not in maps:  # of the first image
                features = after[0][0], before[1][0], after[1][0], (after[0][0] - after[1][0]).abs()
                maps[row.label] = [feature.mean(0).cpu() for feature in features]
        moved = means[:, 0] / means[:, 1]
        numbers[row.label] = {"vanilla": float(moved[0]), "reconstructed": float(moved[1])}

    titles = ("clean: the reference", "blurred, vanilla", "blurred, this network", "|difference|")
    figure, grid = _figure(len(maps), len(pair) + len(titles), 1.9)
    for line, (label, averages) in zip(grid, maps.items(), strict=True):
        line[0].set_ylabel(label, color=INK)
        for axes, title, image in zip(line, ("clean", "blurred"), pair, strict=False):
            axes.imshow(image.permute(1, 2, 0).numpy())
            axes.set_title(title, fontsize=8)
        reference, _, ours, _ = averages
        top = float(torch.maximum(reference, ours).max())
        for axes, title, feature in zip(line[len(pair) :], titles, averages, strict=True):
            vanilla_alone = feature is averages[1]  # it may have another scale altogether
            vmax = None if vanilla_alone else top
            axes.imshow(feature.numpy(), cmap="viridis", vmin=0, vmax=vmax)
            axes.set_title(title, fontsize=8)
        for axes in line:
            axes.set(xticks=[], yticks=[])
    caption = (
        f"Shallow features under {BLUR[0].replace('_', ' ')} {BLUR[1]}, mean over the "
        "channels; the colours of a row have one scale, but vanilla's its own. "
        f"Relative difference over {len(sample)} images: "
        + "; ".join(
            f"{label} {found['reconstructed']:.3f} (vanilla {found['vanilla']:.3f})"
            for label, found in numbers.items()
        )
        + "."
    )
    return Drawn(len(sample), numbers, [picture("differences.png", caption, figure)])


def uncertainty(experiment: Experiment, material: Material) -> Drawn:
    """Fig. 4: histograms of the images' mean θ under two corruptions, severities 1, 3 and 5.

    Raises:
        RunError: the row's network has no UEM.
    """
    (row,) = experiment.rows
    network = material.network(row)
    theta: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, float]] = {}
    for place in product(HISTOGRAMS, SEVERITIES):
        name = "{} {}".format(*place)
        theta[name], numbers[name] = _uncertainty_of(network, material, place)

    figure, grid = _figure(1, len(HISTOGRAMS), 3.4)
    count = min(BINS, max(1, round(len(material.evaluated) ** 0.5)))
    for axes, corruption in zip(grid.flat, HISTOGRAMS, strict=True):
        axes.set_title(corruption.replace("_", " "), fontsize=10)
        names = [f"{corruption} {severity}" for severity in SEVERITIES]
        spread = torch.cat([theta[name] for name in names])
        bins = np.linspace(float(spread.min()), float(spread.max()), count + 1)
        for number, (name, severity) in enumerate(zip(names, SEVERITIES, strict=True)):
            label = f"severity {severity}, top-1 {numbers[name]['top1']:.1%}"
            colour = COLOURS[number]
            axes.hist(theta[name].numpy(), bins, histtype="step", color=colour, label=label)
        axes.set_xlabel("θ = exp(σ/2), mean over an image", color=INK, fontsize=8)
        axes.set_ylabel("images", color=INK, fontsize=8)
        axes.set_ylim(top=1.4 * axes.get_ylim()[1])  # room for the legend
        axes.legend(loc="upper center", fontsize=7, labelcolor=INK, facecolor=PAGE)
    table = Table(
        ("Corruption, severity", "mean θ = exp(σ/2)", "mean θ² = exp(σ)", "top-1, %"),
        tuple(
            (name, f"{at['theta']:.4f}", f"{at['variance']:.4f}", f"{100 * at['top1']:.1f}")
            for name, at in numbers.items()
        ),
        f"The numbers, {len(material.evaluated)} images each",
    )
    histograms = picture(
        "uncertainty.png",
        "Predicted uncertainty by severity. The paper's axis is rescaled: only the order counts.",
        figure,
    )
    blocks: list[Block] = [histograms, Paragraph(_rising(numbers)), table]
    return Drawn(len(material.evaluated), numbers, blocks)


def _uncertainty_of(
    network: Trained, material: Material, place: EvaluationSet
) -> tuple[Tensor, dict[str, float]]:
    """Each image's mean θ, float64 (N,); the means of θ and θ² = exp(σ), and the top-1."""
    if network.uem is None or network.layer is None:
        raise RunError(
            f"{network.name} has no UEM, whose uncertainty Figure 4 shows; take a row that is "
            "trained with one, as ulfd."
        )
    count, variance, right = len(material.evaluated), 0.0, 0
    theta = []
    with torch.no_grad(), FeatureTap(network.model, network.layer) as tap:
        for logits, rows in predictions(network.model, material.inputs(material.evaluated, place)):
            sigma = said_of(network.uem, tap.take()).log_variance.double()
            theta.append(mean_theta(sigma).cpu())
            variance += len(rows) / count * float(sigma.exp().mean())
            right += int((logits.argmax(1).cpu() == material.data.labels[rows]).sum())
    means = {"theta": float(torch.cat(theta).mean()), "variance": variance, "top1": right / count}
    return torch.cat(theta), means


def _rising(numbers: Mapping[str, Mapping[str, float]]) -> str:
    words = []
    for corruption in HISTOGRAMS:
        row = [numbers[f"{corruption} {severity}"]["theta"] for severity in SEVERITIES]
        rises = all(low < high for low, high in pairwise(row))
        words.append(f"{corruption.replace('_', ' ')} {'rises' if rises else 'does not rise'}")
    return f"The mean θ with severity: {', '.join(words)} at every step."


class Kind(NamedTuple):
    """What draws a figure, and the corrupted sets that it needs."""

    draw: Callable[[Experiment, Material], Drawn]
    sets: tuple[EvaluationSet, ...]


FIGURES: Mapping[str, Kind] = {
    "tsne": Kind(tsne, (CONTRAST,)),
    "differences": Kind(differences, (BLUR,)),
    "uncertainty": Kind(uncertainty, tuple(product(HISTOGRAMS, SEVERITIES))),
}
"""A new figure is one function and one entry."""
