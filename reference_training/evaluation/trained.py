"""The evaluation of a run's own networks, on test images in memory, with their uncertainty."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from reference_training.corruptions import corrupt
from reference_training.data.images import Dataset, balanced, fixed_order
from reference_training.data.pairs import normalised
from reference_training.data.samples import CLEAN
from reference_training.evaluation.adaptation import NONE, Adaptation
from reference_training.evaluation.calibration import Features, calibration
from reference_training.evaluation.loop import Batches, predictions
from reference_training.evaluation.sets import small_subset
from reference_training.evaluation.summary import by_corruption
from ulfd_torch import UEM, FeatureTap

BATCH = 500
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


def _prepare(images: Tensor, rows: Tensor) -> Tensor:
    return normalised(images)


def _adapted_top1(
    one: Trained, images: Tensor, labels: Tensor, positions: Tensor, batch: int | None
) -> float:
    order = positions[fixed_order(len(positions))]
    inputs = Batches(images, order, batch or BATCH, _prepare)
    found = predictions(one.model, inputs, one.adaptation)
    return sum(int((part.argmax(1) == labels[rows]).sum()) for part, rows in found) / len(order)


@torch.no_grad()
def look(one: Trained, images: Tensor, most: int = CALIBRATED) -> tuple[Tensor, Features | None]:
    """The logits of images (N, classes); with a UEM also what it sees and says of the first `most`.

    Args:
        one: in eval mode; its adaptation is left out.
        images: uint8 (N, 3, 32, 32).
        most: how many images' features are kept, at least.
    """
    inputs = Batches(images, torch.arange(len(images)), BATCH, _prepare)
    if one.uem is None or one.layer is None:
        return torch.cat([part for part, _ in predictions(one.model, inputs)]), None
    logits: list[Tensor] = []
    kept: list[Features] = []
    with FeatureTap(one.model, one.layer) as tap:
        for part, rows in predictions(one.model, inputs):
            logits.append(part)
            feature = tap.take()
            if rows[0] < most:
                said = one.uem(feature)
                plain = isinstance(said, Tensor)
                kept.append(
                    Features(feature, feature, said)
                    if plain
                    else Features(feature, said.feature, said.log_variance)
                )
    return torch.cat(logits), Features(*map(torch.cat, zip(*kept, strict=True)))


@lru_cache(maxsize=64)
def _clean_features(one: Trained, images: Tensor) -> Features | None:
    return look(one, images)[1]


def measure(one: Trained, images: Tensor, labels: Tensor, *, clean: Tensor) -> dict[str, float]:
    """Top-1 accuracy on all images and on `small_subset`; with a UEM, what it says of them.

    Args:
        one: in eval mode.
        images: uint8 (N, 3, 32, 32).
        labels: int64 (N,).
        clean: the first of the images, `CALIBRATED` if there are so many, not degraded.
    """
    everything, subset = torch.arange(len(images)), small_subset(len(images))
    if one.adaptation is not NONE:
        kind = one.adaptation
        return {
            "top1": _adapted_top1(one, images, labels, everything, kind.batch),
            "top1_subset": _adapted_top1(one, images, labels, subset, kind.small_batch),
        }
    logits, shown = look(one, images)
    correct = logits.argmax(1) == labels
    result = {
        "top1": int(correct.sum()) / len(labels),
        "top1_subset": int(correct[subset].sum()) / len(subset),
    }
    reference = _clean_features(one, clean)
    if shown is None or reference is None:
        return result
    return result | calibration(shown, reference)


def summarise(rows: list[dict[str, Any]], network: str) -> Mapping[str, Any]:
    """One network's part of metrics.json from the lines of evaluation.jsonl."""
    own = {
        (row["corruption"], row["severity"]): row["results"][network]
        for row in rows
        if network in row["results"]
    }

    def everywhere(value: Callable[[Mapping[str, float]], Any]) -> dict[str, Any]:
        values = {one: value(found) for one, found in own.items()}
        return {"clean": values[CLEAN, 0], "corruptions": by_corruption(values)}

    def each(key: str) -> dict[str, Any]:  # None where it is undefined
        return everywhere(lambda found: found.get(key))

    summary: dict[str, Any] = {
        **each("top1"),
        "subset": each("top1_subset"),
        "log_variance": None,
        "uncertainty": None,
    }
    if "uncertainty" in own[CLEAN, 0]:
        summary["uncertainty"] = each("uncertainty")
        summary["calibration"] = {key: each(key) for key in CALIBRATION}
        summary["log_variance"] = everywhere(
            lambda found: {
                "mean": found.get("log_variance_mean"),
                "min": found.get("log_variance_min"),
            }
        )
    return summary
