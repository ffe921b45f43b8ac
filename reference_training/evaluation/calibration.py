"""Does the predicted variance say how far the degraded image's feature is from the clean one's?

Beside it, how well a score orders images: the area under the ROC curve, and Spearman's ρ.
"""

from math import nan
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

ELEMENTS = 16_384
"""Elements of the features whose ranks are compared, evenly over all."""


class Features(NamedTuple):
    """Of N images."""

    teacher: Tensor  # z, if the images are clean: the network's feature, (N, C, H, W)
    student: Tensor  # ẑ, if they are degraded: the same, or what the UEM reconstructs of it
    log_variance: Tensor  # σ, broadcasts to them


def calibration(shown: Features, clean: Features) -> dict[str, float]:
    """What a UEM says of images, beside what is true of them.

    Args:
        shown: of N images as they are evaluated; their `student` is ẑ.
        clean: of the same images, not degraded; their `teacher` is z.

    Returns:
        uncertainty: mean of θ = exp(σ/2) over images and elements (Sec. 4.4).
        log_variance_mean, log_variance_min: of σ.
        squared_difference, variance: means of (z − ẑ)² and of exp(σ), over images and elements.
        weighted_square: mean of exp(−σ)·(z − ẑ)², which is k where Eq. 9 is minimal in σ.
        image_rank_correlation: Spearman's, over the images, of their mean (z − ẑ)² and exp(σ).
        element_rank_correlation: Spearman's, over `ELEMENTS` elements of the features.
        auroc: of an image's mean θ as a detector of degraded images among clean ones.
        A correlation without order (one side constant) is NaN, and left out.
    """
    sigma = shown.log_variance.double()
    square = (clean.teacher - shown.student).double().square()
    variance = sigma.exp()
    by_image = square.flatten(1).mean(1), variance.flatten(1).mean(1)
    step = max(1, square.numel() // ELEMENTS)
    some = square.flatten()[::step], variance.expand_as(square).flatten()[::step]
    result = {
        "uncertainty": float((sigma / 2).exp().mean()),
        "log_variance_mean": float(sigma.mean()),
        "log_variance_min": float(sigma.min()),
        "squared_difference": float(square.mean()),
        "variance": float(variance.mean()),
        "weighted_square": float((square / variance).mean()),
        "image_rank_correlation": rank_correlation(*by_image),
        "element_rank_correlation": rank_correlation(*some),
        "auroc": auroc(mean_theta(clean.log_variance), mean_theta(shown.log_variance)),
    }
    return {name: value for name, value in result.items() if value == value}


def mean_theta(log_variance: Tensor) -> Tensor:
    """θ = exp(σ/2), averaged over the elements of each image (Sec. 4.4): float64 (N,)."""
    return (log_variance.double() / 2).exp().flatten(1).mean(1)


def auroc(clean: ArrayLike, degraded: ArrayLike) -> float:
    """The area under the ROC curve of a score as a detector of degraded images.

    Args:
        clean: (N,), the scores of clean images.
        degraded: (M,), the scores of degraded images, which should be higher.

    Returns:
        P(degraded > clean) + P(equal) / 2 of two images drawn at random; 0.5 is chance.
    """
    from sklearn.metrics import roc_auc_score  # slow to import, and most processes need it late

    clean, degraded = np.asarray(clean), np.asarray(degraded)
    truth = np.repeat([0, 1], [len(clean), len(degraded)])
    return float(roc_auc_score(truth, np.concatenate([clean, degraded])))


def risks(doubt: ArrayLike, wrong: ArrayLike) -> np.ndarray:
    """The risk–coverage curve of a score: the error among the images that are kept.

    Its mean is the AURC (Geifman et al. 2019, "Bias-reduced uncertainty estimation").

    Args:
        doubt: (N,); the images of least doubt are kept.
        wrong: (N,), 1 for a wrong prediction, 0 for a right one.

    Returns:
        float64 (N,): the error among the k least doubtful, k = 1, ..., N, where equal doubts come
        in any order: its expectation.
    """
    _, group, sizes = np.unique(doubt, return_inverse=True, return_counts=True)
    shares = np.bincount(group, np.asarray(wrong, float)) / sizes
    return np.cumsum(np.repeat(shares, sizes)) / np.arange(1, len(group) + 1)


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's ρ: Pearson's correlation of the ranks, ties sharing their mean rank.

    Args:
        first: (N,).
        second: (N,), of the same N.

    Returns:
        ρ in [−1, 1], or NaN where one side is constant and has no order.
    """
    from scipy.stats import rankdata  # slow to import

    first, second = np.asarray(first), np.asarray(second)
    if (first == first[0]).all() or (second == second[0]).all():
        return nan
    return float(np.corrcoef(rankdata(first), rankdata(second))[1, 0])
