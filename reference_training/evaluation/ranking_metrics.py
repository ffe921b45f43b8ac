"""How well a score orders images: the area under the ROC curve, and Spearman's ρ."""

from math import nan

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score


def auroc(clean: ArrayLike, degraded: ArrayLike) -> float:
    """The area under the ROC curve of a score as a detector of degraded images.

    Args:
        clean: (N,), the scores of clean images.
        degraded: (M,), the scores of degraded images, which should be higher.

    Returns:
        P(degraded > clean) + P(equal) / 2 of two images drawn at random; 0.5 is chance.
    """
    clean, degraded = np.asarray(clean), np.asarray(degraded)
    truth = np.repeat([0, 1], [len(clean), len(degraded)])
    return float(roc_auc_score(truth, np.concatenate([clean, degraded])))


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's ρ: Pearson's correlation of the ranks, ties sharing their mean rank.

    Args:
        first: (N,).
        second: (N,), of the same N.

    Returns:
        ρ in [−1, 1], or NaN where one side is constant and has no order.
    """
    first, second = np.asarray(first), np.asarray(second)
    if (first == first[0]).all() or (second == second[0]).all():
        return nan
    return float(np.corrcoef(rankdata(first), rankdata(second))[1, 0])
