"""The evaluation of a run's own networks, on test images in memory, with their uncertainty."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from reference_training.corruptions import corrupt
from reference_training.data.images import SIDE, Dataset, balanced, fixed_order
from reference_training.data.pairs import normalised
from reference_training.data.samples import CLEAN
from reference_training.evaluation.adaptation import NONE, Adaptation
from reference_training.evaluation.calibration import Features, auroc, calibration
from reference_training.evaluation.loop import Batches, predictions
from reference_training.evaluation.sets import DRAWS, drawn, few
from reference_training.evaluation.summary import by_corruption
from ulfd_torch import UEM, FeatureTap

BATCH = 500
"""Images of 32×32 that go through the network together; fewer of larger ones."""
CALIBRATION = (
    "squared_difference variance weighted_square image_rank_correlation "
    "element_rank_correlation auroc"
).split()
CALIBRATED = 500
"""Images, at least, on which the uncertainty is compared with what is true."""


@dataclass(frozen=True)
class Trained:
    """A network to evaluate, and its UEM if its uncertainty is to be measured too."""

    name: str  # "method/seed"
    model: nn.Module
    uem: UEM | None = None
    layer: str | None = None
    """Of the model, whose output the UEM sees."""
    adaptation: Adaptation = NONE


def test_images(dataset: Dataset, images: int) -> tuple[Tensor, Tensor]:
    """The first `images` test images, balanced over the classes, and their labels."""
    if images >= len(dataset.test_labels):
        return dataset.test_images, dataset.test_labels
    chosen = balanced(dataset.test_labels, images - images % dataset.classes)
    return dataset.test_images[chosen], dataset.test_labels[chosen]


def degraded(images: Tensor, name: str, severity: int, frost: str) -> Tensor:
    """The evaluation set: fixed for ever, since image number i always has the seed i."""
    if name == CLEAN:
        return images
    return corrupt(images, name, severity, frost=frost)


def _batches(images: Tensor, positions: Tensor, size: int) -> Batches:
    return Batches(images, positions, size, lambda batch, _: normalised(batch))


def batch_size(images: Tensor) -> int:
    """How many of these images (N, 3, S, S) go through a network together."""
    return max(1, BATCH * SIDE**2 // images[0, 0].numel())


def said_of(uem: UEM, feature: Tensor) -> Features:
    """What the UEM says of a feature (N, C, H, W), beside what it sees."""
    said = uem(feature)
    if isinstance(said, Tensor):
        return Features(feature, feature, said)
    return Features(feature, said.feature, said.log_variance)


@torch.no_grad()
def look(
    network: Trained, images: Tensor, most: int = CALIBRATED
) -> tuple[Tensor, Features | None]:
    """The logits of images (N, classes); with a UEM also what it sees and says of the first `most`.

    Args:
        network: in eval mode; its adaptation is left out.
        images: uint8 (N, 3, S, S).
        most: how many images' features are kept, at least.
    """
    inputs = _batches(images, torch.arange(len(images)), batch_size(images))
    if network.uem is None or network.layer is None:
        return torch.cat([part for part, _ in predictions(network.model, inputs)]), None
    logits: list[Tensor] = []
    kept: list[Features] = []
    with FeatureTap(network.model, network.layer) as tap:
        for part, rows in predictions(network.model, inputs):
            logits.append(part)
            feature = tap.take()
            if rows[0] < most:
                kept.append(said_of(network.uem, feature))
    return torch.cat(logits), Features(*map(torch.cat, zip(*kept, strict=True)))


_look_at_clean = lru_cache(maxsize=64)(look)


def doubt(logits: Tensor) -> Tensor:
    """1 − the largest softmax output, float64: what tells of degraded images without a UEM."""
    return 1 - logits.double().softmax(1).amax(1)


def measure(network: Trained, images: Tensor, labels: Tensor, *, clean: Tensor) -> dict[str, Any]:
    """Top-1 on all images and on each of `DRAWS` of a `few`; with a UEM, what it says of them.

    Without an adaptation also the AUROC of 1 − max-softmax as a detector of degraded images.

    Args:
        network: in eval mode.
        images: uint8 (N, 3, S, S).
        labels: int64 (N,).
        clean: the first of the images, `CALIBRATED` if there are so many, not degraded.
    """
    draws = [drawn(len(images), few(len(images)), draw) for draw in range(DRAWS)]
    if network.adaptation is not NONE:
        kind, whole = network.adaptation, batch_size(images)

        def adapted(order: Tensor, size: int | None) -> float:
            parts = predictions(network.model, _batches(images, order, size or whole), kind)
            right = sum(int((part.argmax(1) == labels[rows]).sum()) for part, rows in parts)
            return right / len(order)

        return {
            "top1": adapted(fixed_order(len(images)), kind.batch),
            "top1_draws": [adapted(draw, kind.small_batch) for draw in draws],
        }
    logits, features = look(network, images)
    correct = logits.argmax(1) == labels
    result = {
        "top1": int(correct.sum()) / len(labels),
        "top1_draws": [int(correct[draw].sum()) / len(draw) for draw in draws],
    }
    clean_logits, reference = _look_at_clean(network, clean)
    result["auroc_max_softmax"] = auroc(doubt(clean_logits), doubt(logits[: len(clean)]))
    if features is None or reference is None:
        return result
    return result | calibration(features, reference)


def summarise(rows: list[dict[str, Any]], network: str) -> Mapping[str, Any]:
    """One network's part of metrics.json from the lines of evaluation.jsonl."""
    own = {
        (row["corruption"], row["severity"]): row["results"][network]
        for row in rows
        if network in row["results"]
    }

    def table(value: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any]:
        values = {place: value(found) for place, found in own.items()}
        return {"clean": values[CLEAN, 0], "corruptions": by_corruption(values)}

    def each(key: str) -> dict[str, Any]:  # None where it is undefined
        return table(lambda found: found.get(key))

    def draw(number: int) -> dict[str, Any]:
        return table(lambda found: found["top1_draws"][number])

    summary = {**each("top1"), "draws": [*map(draw, range(DRAWS))]}
    summary["auroc_max_softmax"] = each("auroc_max_softmax")
    if "uncertainty" not in own[CLEAN, 0]:
        return summary | {"log_variance": None, "uncertainty": None}
    kinds = ("mean", "min")
    return summary | {
        "log_variance": table(
            lambda found: {kind: found.get(f"log_variance_{kind}") for kind in kinds}
        ),
        "uncertainty": each("uncertainty"),
        "calibration": {key: each(key) for key in CALIBRATION},
    }
