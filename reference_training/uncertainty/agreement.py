"""How well a score that needs no clean image tells how degraded an image is: AUROC and Spearman."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score

from reference_training.corruptions import CORRUPTIONS, SEEN, SEVERITIES, UNSEEN
from reference_training.evaluation.corruption_error import rank_correlation

Json = dict[str, Any]
GROUPS = {"seen": SEEN, "unseen": UNSEEN}


def auroc(clean: ArrayLike, degraded: ArrayLike) -> float:
    """P(degraded > clean) + P(equal) / 2 of two images drawn at random: the area under the ROC."""
    clean, degraded = np.asarray(clean), np.asarray(degraded)
    truth = np.repeat([0, 1], [len(clean), len(degraded)])
    return float(roc_auc_score(truth, np.concatenate([clean, degraded])))


def same_image_correlation(scores: ArrayLike) -> float:
    """Spearman's ρ of score with severity within each image, averaged over the images.

    Args:
        scores: (N, severities), a row for each image.

    Returns:
        The mean ρ in [−1, 1] of the rows that are not constant; NaN if all are.
    """
    scores = np.asarray(scores)
    below = (scores[:, :, None] > scores[:, None, :]).sum(2)
    equal = (scores[:, :, None] == scores[:, None, :]).sum(2)
    ranks = below + (equal + 1) / 2  # ties share their mean rank
    ranks -= ranks.mean(1, keepdims=True)
    steps = np.arange(scores.shape[1]) - (scores.shape[1] - 1) / 2
    lengths = np.linalg.norm(ranks, axis=1) * np.linalg.norm(steps)
    ordered = lengths > 0
    return float((ranks[ordered] @ steps / lengths[ordered]).mean()) if ordered.any() else np.nan


def quality(scores_clean: ArrayLike, scores_by_set: Mapping[tuple[str, int], ArrayLike]) -> Json:
    """A score as a quality meter, against clean images and by severity.

    Args:
        scores_clean: (N,), one for each clean image; higher means more degraded.
        scores_by_set: {(corruption, severity): (N,)} of the same images in the same order, at
            every severity of each corruption that is there.

    Returns:
        JSON: `images`, and below `corruptions` for each of them

        * `auroc`: clean against degraded at severities 1 to 5;
        * `auroc_pooled`: clean against all severities together;
        * `spearman`: ρ of score with severity over all images × severities;
        * `spearman_same_image`: the mean over images of ρ within each.

        `seen` and `unseen` are their unweighted means over the corruptions of the paper's groups;
        None where there is no such corruption, or the score is constant and has no order.

    Raises:
        ValueError: a severity is missing, the lengths differ, or a score is not finite.
    """
    clean = _finite(scores_clean, "the clean images")
    names = [name for name in CORRUPTIONS if any(name == one for one, _ in scores_by_set)]
    if not names:
        raise ValueError("quality: no degraded images given; at least one corruption is needed.")
    by_name = {name: _of_corruption(name, clean, scores_by_set) for name in names}
    groups = {
        group: _mean([by_name[name] for name in members if name in by_name])
        for group, members in GROUPS.items()
    }
    return {"images": len(clean), "corruptions": by_name, **groups}


def _of_corruption(
    name: str, clean: np.ndarray, scores_by_set: Mapping[tuple[str, int], ArrayLike]
) -> Json:
    rows = []
    for severity in SEVERITIES:
        if (name, severity) not in scores_by_set:
            raise ValueError(f"quality: {name!r} lacks severity {severity}; score all of them.")
        row = _finite(scores_by_set[name, severity], f"{name} {severity}")
        if len(row) != len(clean):
            raise ValueError(
                f"quality: {name} {severity} has {len(row)} scores, but there are {len(clean)} "
                "clean images; score the same images."
            )
        rows.append(row)
    scores = np.stack(rows, axis=1)  # (N, severities)
    severities = np.tile(SEVERITIES, len(clean))
    return {
        "auroc": [auroc(clean, row) for row in rows],
        "auroc_pooled": auroc(clean, scores.ravel()),
        "spearman": _number(rank_correlation(scores.ravel().tolist(), severities.tolist())),
        "spearman_same_image": _number(same_image_correlation(scores)),
    }


def _finite(scores: ArrayLike, what: str) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(
            f"quality: the scores of {what} must be finite numbers (N,), N ≥ 1; got the shape "
            f"{values.shape} with {int((~np.isfinite(values)).sum())} that are not."
        )
    return values


def _mean(results: Sequence[Json]) -> Json | None:
    if not results:
        return None
    by_severity = [fmean(column) for column in zip(*(r["auroc"] for r in results), strict=True)]
    single = {key: [r[key] for r in results if r[key] is not None] for key in results[0]}
    del single["auroc"]
    means = {key: fmean(values) if values else None for key, values in single.items()}
    return {"auroc": by_severity, **means}


def _number(value: float) -> float | None:
    return None if isnan(value) else value
