"""What can be said about an image's quality without knowing the clean one; higher is worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional


class Observed(NamedTuple):
    """A batch of images and what the network made of them."""

    images: Tensor  # uint8 (B, 3, H, W), before normalisation
    logits: Tensor  # (B, classes)
    feature: Tensor  # ẑ, (B, C, h, w)
    log_variance: Tensor | None  # σ of the UEM, if there is one
    untrained: Tensor | None  # σ of a UEM with random weights, if one is compared


@dataclass(frozen=True)
class Statistic:
    """A number for each image, float64 (B,); higher means more degraded."""

    label: str
    meaning: str
    of: Callable[[Observed], Tensor]
    needs: str | None = None
    """The field of `Observed` that must be there."""


def _per_image(values: Tensor) -> Tensor:
    return values.double().flatten(1).mean(1)


def _theta(sigma: Tensor | None) -> Tensor:
    assert sigma is not None  # `needs` keeps others away
    return _per_image((sigma.double() / 2).exp())


def _mean_sigma(observed: Observed) -> Tensor:
    assert observed.log_variance is not None
    return _per_image(observed.log_variance)


def _smoothness(observed: Observed) -> Tensor:
    grey = observed.images.double().mean(1, keepdim=True)
    kernel = grey.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return -_per_image(functional.conv2d(grey, kernel).abs())


STATISTICS: dict[str, Statistic] = {
    "theta": Statistic(
        "θ",
        "mean over the feature's elements of θ = exp(σ/2), with the UEM's σ (Sec. 4.4)",
        lambda seen: _theta(seen.log_variance),
        needs="log_variance",
    ),
    "log_variance": Statistic(
        "σ",
        "mean over the feature's elements of the UEM's σ = log θ²",
        _mean_sigma,
        needs="log_variance",
    ),
    "untrained": Statistic(
        "θ, untrained",
        "θ of a UEM of the same form with random weights: what its training did not add",
        lambda seen: _theta(seen.untrained),
        needs="untrained",
    ),
    "confidence": Statistic(
        "1 − confidence",
        "1 − the classifier's largest softmax output",
        lambda seen: 1 - seen.logits.double().softmax(1).amax(1),
    ),
    "activation": Statistic(
        "−activation",
        "minus the mean of the network's feature ẑ, which the UEM starts from",
        lambda seen: -_per_image(seen.feature),
    ),
    "smoothness": Statistic(
        "smoothness",
        "minus the mean absolute Laplacian in grey levels, which needs no network",
        _smoothness,
    ),
}
"""The UEM's statistics, and those that one would take without a UEM. A new one is one entry."""
