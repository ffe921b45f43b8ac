"""Accuracies over corruptions, condensed to the paper's numbers.

Everything is a fraction (0.25 is 25 %); multiply by 100 to print. Accuracies and errors come as
{corruption: [severity 1, ..., severity 5]}, with more corruptions than a function needs allowed.

Source: Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations", Sec. 4, and Table 1 of the ULFD paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from types import MappingProxyType
from typing import Any

from reference_training.corruptions import SEEN, SEVERITIES, UNSEEN

PerSeverity = Mapping[str, Sequence[float]]

# Top-1 errors of torchvision's AlexNet (weights alexnet-owt-4df8aa71) on ImageNet-C, full
# precision: README of github.com/hendrycks/robustness as of commit 76d9393.
ALEXNET_ERRORS: PerSeverity = MappingProxyType(
    {
        "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
        "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
        "impulse_noise": (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
        "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
        "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
        "motion_blur": (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
        "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
        "snow": (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
        "frost": (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
        "fog": (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
        "brightness": (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
        "contrast": (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
        "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
        "pixelate": (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
        "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
        "speckle_noise": (0.66192, 0.74440, 0.90246, 0.94548, 0.97268),
        "gaussian_blur": (0.54732, 0.70444, 0.82574, 0.89864, 0.95940),
        "spatter": (0.47196, 0.62194, 0.75052, 0.84132, 0.90182),
        "saturate": (0.59342, 0.65514, 0.51174, 0.70834, 0.82260),
    }
)
# torchvision's documentation of AlexNet_Weights.IMAGENET1K_V1: 56.522 % top-1.
ALEXNET_CLEAN_ERROR = 0.43478


@dataclass(frozen=True)
class Normaliser:
    """The errors by which corruption errors are divided, and where they come from."""

    name: str
    errors: PerSeverity
    clean_error: float | None
    source: str
    content: Mapping[str, Any] = field(default_factory=dict)
    """What tells the images of its sets from others, in the form of the errors; none if unknown."""


ALEXNET = Normaliser(
    name="AlexNet",
    errors=ALEXNET_ERRORS,
    clean_error=ALEXNET_CLEAN_ERROR,
    source="torchvision's weights alexnet-owt-4df8aa71 on all 50,000 images of the published "
    "ImageNet-C: README of github.com/hendrycks/robustness as of commit 76d9393; clean error: "
    "torchvision's documentation",
)


def errors_of(accuracies: PerSeverity) -> dict[str, list[float]]:
    """E = 1 − accuracy, for each corruption and severity (fractions)."""
    return {name: [1.0 - value for value in row] for name, row in accuracies.items()}


def seen_accuracy(accuracies: PerSeverity) -> float:
    """Unweighted mean top-1 over the 15 seen corruptions × 5 severities ("Seen" of Table 1).

    Raises:
        ValueError: a corruption or severity is missing, or a value is not a fraction.
    """
    return fmean(value for name in SEEN for value in _row(accuracies, name))


def unseen_accuracy(accuracies: PerSeverity) -> float:
    """Unweighted mean top-1 over the 4 held-out corruptions × 5 severities ("Unseen", Table 1).

    Raises:
        ValueError: a corruption or severity is missing, or a value is not a fraction.
    """
    return fmean(value for name in UNSEEN for value in _row(accuracies, name))


def mean_corruption_error(accuracies: PerSeverity) -> float:
    """Plain mean error over the 15 seen corruptions × 5 severities: 1 − Seen, not normalised.

    Raises:
        ValueError: a corruption or severity is missing, or a value is not a fraction.
    """
    return 1.0 - seen_accuracy(accuracies)


def corruption_errors(
    errors: PerSeverity,
    reference_errors: PerSeverity,
    clean_error: float = 0.0,
    reference_clean_error: float = 0.0,
    *,
    corruptions: Sequence[str] = SEEN,
) -> dict[str, float]:
    """CE_c = Σ_s E(s, c) / Σ_s E_ref(s, c), for each corruption c; 1 is as wrong as the reference.

    With the clean errors it is the relative CE_c = Σ_s (E(s, c) − E_clean) / Σ_s (E_ref(s, c) −
    E_ref,clean): how much a corruption costs, whatever the clean error is.

    Args:
        errors: top-1 errors of the network in question, fractions.
        reference_errors: those of the reference; `ALEXNET_ERRORS` for ImageNet-C.
        clean_error, reference_clean_error: of both on clean images; 0 where not relative.
        corruptions: the ones to report.

    Raises:
        ValueError: something is missing, not a fraction, or a corruption costs the reference
            nothing.
    """
    _check_fractions([clean_error, reference_clean_error], "the clean error")
    found = {}
    for name in corruptions:
        own = sum(error - clean_error for error in _row(errors, name))
        others = sum(error - reference_clean_error for error in _row(reference_errors, name))
        if others == 0.0:
            why = "loses nothing by" if reference_clean_error else "makes no error on"
            raise ValueError(
                f"corruption error: the reference {why} {name!r}, so dividing by it is undefined; "
                "use another reference, or the plain `mean_corruption_error`."
            )
        found[name] = own / others
    return found


def normalised_corruption_error(errors: PerSeverity, reference_errors: PerSeverity) -> float:
    """mCE: the mean over the 15 seen corruptions of `corruption_errors`.

    The reference is AlexNet in the paper's mCE columns.

    Raises:
        ValueError: something is missing, not a fraction, or the reference makes no error at all.
    """
    return fmean(corruption_errors(errors, reference_errors).values())


def _row(values: PerSeverity, corruption: str) -> Sequence[float]:
    row = values.get(corruption, ())
    if len(row) != len(SEVERITIES):
        found = f"has {len(row)} values" if corruption in values else "is missing"
        raise ValueError(
            f"corruption error: {corruption!r} {found}; evaluate all {len(SEEN)} seen and "
            f"{len(UNSEEN)} unseen corruptions at the severities {tuple(SEVERITIES)} first."
        )
    _check_fractions(row, repr(corruption))
    return row


def _check_fractions(values: Sequence[float], what: str) -> None:
    if not all(0.0 <= value <= 1.0 for value in values):
        raise ValueError(
            f"corruption error: {what} holds {list(values)}, but accuracies and errors are "
            "fractions from 0 to 1; divide percentages by 100."
        )
