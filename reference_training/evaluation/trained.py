"""The evaluation of a run's own networks, on test images in memory, with their uncertainty."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from reference_training.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from reference_training.data.images import Dataset, balanced
from reference_training.data.pairs import normalised
from reference_training.data.samples import CLEAN
from reference_training.evaluation.adaptation import NONE, Adaptation
from reference_training.evaluation.calibration import Features, calibration
from ulfd_torch import UEM, FeatureTap

BATCH = 500
CALIBRATION = (
    "squared_difference variance weighted_square image_rank_correlation "
    "element_rank_correlation auroc"
).split()
FEW = BATCH
"""Images of a test-time adaptation's second setting (Table 4), if there are ten times as many."""


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
    chosen = balanced(dataset.test_labels, images // dataset.classes, dataset.classes)
    return dataset.test_images[chosen], dataset.test_labels[chosen]


def degraded(images: Tensor, name: str, severity: int, frost: str) -> Tensor:
    """The evaluation set: fixed for ever, since image number i always has the seed i."""
    if name == CLEAN:
        return images
    seeds = torch.arange(len(images))
    return corrupt(images, name, severity, seeds=seeds, frost=frost)


def subset(images: int) -> Tensor:
    """A fixed random tenth of so many positions, at most `FEW`: Table 4's second column."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(0))
    return order[: min(FEW, max(1, images // 10))]


def _adapted_top1(one: Trained, images: Tensor, labels: Tensor, batch: int) -> float:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    batches = (normalised(images[rows]) for rows in order.split(batch))
    found = torch.cat([part.argmax(1) for part in one.adaptation.predict(one.model, batches)])
    return int((found == labels[order]).sum()) / len(labels)


@torch.no_grad()
def look(one: Trained, images: Tensor, most: int = FEW) -> tuple[Tensor, Features | None]:
    """The logits of images (N, classes); with a UEM also what it sees and says of the first `most`.

    Args:
        one: in eval mode; its adaptation is left out.
        images: uint8 (N, 3, 32, 32).
        most: how many images' features are kept, at least.
    """
    logits: list[Tensor] = []
    if one.uem is None or one.layer is None:
        for rows in images.split(BATCH):
            logits.append(one.model(normalised(rows)))
        return torch.cat(logits), None
    kept: list[Features] = []
    with FeatureTap(one.model, one.layer) as tap:
        for start, rows in zip(range(0, len(images), BATCH), images.split(BATCH), strict=True):
            logits.append(one.model(normalised(rows)))
            feature = tap.take()
            if start < most:
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
    """Top-1 accuracy on all images and on `subset` of them; with a UEM, what it says of them.

    Args:
        one: in eval mode.
        images: uint8 (N, 3, 32, 32).
        labels: int64 (N,).
        clean: the first of the images, `FEW` if there are so many, not degraded.
    """
    few = subset(len(images))
    if one.adaptation is not NONE:
        return {
            "top1": _adapted_top1(one, images, labels, one.adaptation.batch or BATCH),
            "top1_subset": _adapted_top1(
                one, images[few], labels[few], one.adaptation.small_batch or BATCH
            ),
        }
    logits, shown = look(one, images)
    correct = logits.argmax(1) == labels
    result = {
        "top1": int(correct.sum()) / len(labels),
        "top1_subset": int(correct[few].sum()) / len(few),
    }
    reference = _clean_features(one, clean)
    if shown is None or reference is None:
        return result
    return result | calibration(shown, reference)


def _by_corruption(rows: list[dict[str, Any]], key: str) -> Iterator[tuple[str, list[Any]]]:
    """For each corruption, what `key` gave at the severities 1 to 5; None where it is undefined."""
    for name in CORRUPTIONS:
        found = {row["severity"]: row["value"] for row in rows if row["corruption"] == name}
        yield name, [found[severity].get(key) for severity in SEVERITIES]


def summarise(rows: list[dict[str, Any]], network: str) -> Mapping[str, Any]:
    """One network's part of metrics.json from the lines of evaluation.jsonl."""
    own = [row | {"value": row["results"][network]} for row in rows if network in row["results"]]
    (clean,) = (row["value"] for row in own if row["corruption"] == CLEAN)

    def everywhere(key: str) -> dict[str, Any]:
        return {"clean": clean.get(key), "corruptions": dict(_by_corruption(own, key))}

    summary: dict[str, Any] = {
        **everywhere("top1"),
        "subset": everywhere("top1_subset"),
        "log_variance": None,
        "uncertainty": None,
    }
    if "uncertainty" in clean:
        means, minima = everywhere("log_variance_mean"), everywhere("log_variance_min")
        summary["uncertainty"] = everywhere("uncertainty")
        summary["calibration"] = {key: everywhere(key) for key in CALIBRATION}
        summary["log_variance"] = {
            "clean": {"mean": means["clean"], "min": minima["clean"]},
            "corruptions": {
                name: [
                    {"mean": mean, "min": low}
                    for mean, low in zip(row, minima["corruptions"][name], strict=True)
                ]
                for name, row in means["corruptions"].items()
            },
        }
    return summary
