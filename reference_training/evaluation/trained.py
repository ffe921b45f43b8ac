"""The evaluation of a run's own networks, on test images in memory, with their uncertainty."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reference_training.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from reference_training.data.images import Dataset, balanced
from reference_training.data.pairs import normalised
from reference_training.data.samples import CLEAN
from ulfd_torch import UEM, FeatureTap

BATCH = 500


@dataclass(frozen=True)
class Trained:
    """A network to evaluate, and its UEM if its uncertainty is to be measured too."""

    name: str  # "method/seed"
    model: nn.Module
    uem: UEM | None
    feature_layer: str


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


@torch.no_grad()
def measure(trained: Trained, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 accuracy; with a UEM also the mean and minimum of σ and the mean of θ = exp(σ/2).

    Args:
        trained: in eval mode.
        images: uint8 (N, 3, 32, 32).
        labels: int64 (N,).
    """
    correct, minimum = 0, float("inf")
    sigma_sum = theta_sum = elements = 0.0
    with FeatureTap(trained.model, trained.feature_layer) as tap:
        for rows, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            logits = trained.model(normalised(rows))
            correct += int((logits.argmax(1) == truth).sum())
            feature = tap.take()
            if trained.uem is not None:
                sigma = trained.uem(feature).double()
                sigma_sum += float(sigma.sum())
                theta_sum += float((sigma / 2).exp().sum())
                minimum = min(minimum, float(sigma.min()))
                elements += sigma.numel()
    result = {"top1": correct / len(labels)}
    if trained.uem is not None:
        result |= {
            "uncertainty": theta_sum / elements,
            "log_variance_mean": sigma_sum / elements,
            "log_variance_min": minimum,
        }
    return result


def _by_corruption(rows: list[dict[str, Any]], key: str) -> Iterator[tuple[str, list[Any]]]:
    """For each corruption, what `key` gave at the severities 1 to 5."""
    for name in CORRUPTIONS:
        found = {row["severity"]: row["value"] for row in rows if row["corruption"] == name}
        yield name, [found[severity][key] for severity in SEVERITIES]


def summarise(rows: list[dict[str, Any]], network: str) -> Mapping[str, Any]:
    """One network's part of metrics.json from the lines of evaluation.jsonl."""
    own = [row | {"value": row["results"][network]} for row in rows]
    clean = own[0]["value"]
    summary: dict[str, Any] = {
        "clean": clean["top1"],
        "corruptions": dict(_by_corruption(own, "top1")),
        "log_variance": None,
        "uncertainty": None,
    }
    if "uncertainty" in clean:
        means = dict(_by_corruption(own, "log_variance_mean"))
        minima = dict(_by_corruption(own, "log_variance_min"))
        summary["uncertainty"] = {
            "clean": clean["uncertainty"],
            "corruptions": dict(_by_corruption(own, "uncertainty")),
        }
        summary["log_variance"] = {
            "clean": {"mean": clean["log_variance_mean"], "min": clean["log_variance_min"]},
            "corruptions": {
                name: [
                    {"mean": mean, "min": low}
                    for mean, low in zip(means[name], minima[name], strict=True)
                ]
                for name in CORRUPTIONS
            },
        }
    return summary
