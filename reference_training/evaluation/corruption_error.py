"""Accuracies over corruptions, condensed to the paper's numbers.

Everything is a fraction (0.25 is 25 %); multiply by 100 to print. Accuracies and errors come as
{corruption: [severity 1, ..., severity 5]}, with more corruptions than a function needs allowed; a
corruption or severity that is missing, or a value that is no fraction, is a ValueError.

Source: Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations", Sec. 4, and Table 1 of the ULFD paper.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from reference_training.corruptions import SEEN, SEVERITIES, UNSEEN

PerSeverity = Mapping[str, Sequence[float]]


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
    **json.loads(Path(__file__).with_name("alexnet.json").read_text(encoding="utf-8"))
)
"""Top-1 errors of torchvision's AlexNet on ImageNet-C in full precision, as published."""


def errors_of(accuracies: PerSeverity) -> dict[str, list[float]]:
    """E = 1 − accuracy, for each corruption and severity (fractions)."""
    return {name: [1.0 - value for value in row] for name, row in accuracies.items()}


def seen_accuracy(accuracies: PerSeverity) -> float:
    """Unweighted mean top-1 over the 15 seen corruptions × 5 severities ("Seen" of Table 1)."""
    return fmean(value for name in SEEN for value in _row(accuracies, name))


def unseen_accuracy(accuracies: PerSeverity) -> float:
    """Unweighted mean top-1 over the 4 held-out corruptions × 5 severities ("Unseen", Table 1)."""
    return fmean(value for name in UNSEEN for value in _row(accuracies, name))


def mean_corruption_error(accuracies: PerSeverity) -> float:
    """Plain mean error over the 15 seen corruptions × 5 severities: 1 − Seen, not normalised."""
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
        reference_errors: those of the reference; `ALEXNET.errors` for ImageNet-C.
        clean_error, reference_clean_error: of both on clean images; 0 where not relative.
        corruptions: the ones to report.

    Raises:
        ValueError: a corruption costs the reference nothing.
    """
    _check_fractions([clean_error, reference_clean_error], "the clean error")
    found = {}
    for name in corruptions:
        own = sum(error - clean_error for error in _row(errors, name))
        others = sum(error - reference_clean_error for error in _row(reference_errors, name))
        if others <= 0.0:  # less than its clean error: the quotient's sign would mean nothing
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
