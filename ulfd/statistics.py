"""What to log of the loss, beside its value, and what to worry about; over any array namespace."""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import array_api_compat

from ulfd.losses import Array, clamped

SAMPLE = 4096
"""How many elements the rank correlation and the top share look at: the same ones every time."""
FEWEST = 32
"""A σ of fewer elements has no rank correlation, which chance would make."""
_SPREAD = 2654435761  # a prime above every number of elements, whose multiples jump through them
NEGATIVE, CONCENTRATED, AT_LIMITS = -0.1, 0.6, 0.5
REMEDY = (
    "The official UEM's global skip does this, for it ties an element's weight to exp(activation): "
    "take UEM(C), or UEM.official(C, global_skip=False)."
)


class LossStatistics(NamedTuple):
    """0-d arrays without gradients on the features' device; to read one is to wait for the device.

    Where no clamp acts, the mean of Eq. 9 is weighted_residual + 2 · log_variance_mean.

    Args:
        weighted_residual: mean of exp(−σ)·(z − ẑ)², σ limited; k where σ is the best number.
        squared_difference: mean of (z − ẑ)².
        log_variance_mean, log_variance_min, log_variance_max: of σ as it was predicted.
        log_variance_clamped: the share of σ's elements on which the clamp acts.
        rank_correlation: Spearman's, of σ with the mean of (z − ẑ)² over the elements that share
            it, over `SAMPLE` of σ's elements; 0 where σ has fewer than `FEWEST`, or is constant.
        effective_weight: weighted_residual / squared_difference: what λ is multiplied by; 0 where
            the features are equal.
        top_share: of the sum of exp(−σ)·(z − ẑ)², the share that the largest 1 % of its elements
            have, over `SAMPLE` of them; 0.08 were z − ẑ Gaussian and σ constant.
    """

    weighted_residual: Any
    squared_difference: Any
    log_variance_mean: Any
    log_variance_min: Any
    log_variance_max: Any
    log_variance_clamped: Any
    rank_correlation: Any
    effective_weight: Any
    top_share: Any

    def as_dict(self) -> dict[str, float]:
        """{name: number}; waits for the device once, for all of them.

        Warns with what `concern` says.
        """
        xp = array_api_compat.array_namespace(self.weighted_residual)
        numbers = dict(zip(self._fields, xp.stack(list(self)).tolist(), strict=True))
        if (words := concern(numbers)) is not None:
            warnings.warn(words, stacklevel=2)
        return numbers


def concern(numbers: Mapping[str, float]) -> str | None:
    """What is wrong by the numbers of `LossStatistics`, in one line with the remedy; or None.

    Numbers that are not there are not looked at.

    >>> concern({"rank_correlation": -0.7, "top_share": 0.3})[:62]
    'σ falls where the error grows: their rank correlation is -0.70'
    """
    if numbers.get("rank_correlation", 0.0) < NEGATIVE:
        found = f"their rank correlation is {numbers['rank_correlation']:.2f}"
        return f"σ falls where the error grows: {found}. {REMEDY}"
    if numbers.get("top_share", 0.0) > CONCENTRATED:
        found = f"1 % of the elements carry {numbers['top_share']:.0%} of the distillation loss"
        return f"{found}. {REMEDY}"
    if numbers.get("log_variance_clamped", 0.0) > AT_LIMITS:
        return (
            f"{numbers['log_variance_clamped']:.0%} of σ lie beyond the clamp, where σ learns "
            "nothing. Standardise the features or targets to a size of about 1, or widen the clamp."
        )
    return None


def loss_statistics(
    student: Array,
    teacher: Array,
    log_variance: Array,
    weighted: Array,
    squared: Array,
    *,
    clamp: tuple[float, float] | None,
    xp: Any,
    arange: Callable[[int], Any],
) -> LossStatistics:
    """The numbers, of the two losses that an adapter's kernels computed and a look at the inputs.

    Args:
        student, teacher: ẑ and z.
        log_variance: σ in the losses' dtype, of a shape that broadcasts to the features'.
        weighted: mean of exp(−σ)·(z − ẑ)², σ limited, a 0-d array.
        squared: mean of (z − ẑ)², likewise.
        clamp: of the loss.
        xp: the array namespace, as `array_api_compat.numpy`.
        arange: 0 to n − 1 as int64, which indexes the arrays.
    """
    share = xp.zeros_like(weighted)
    if clamp is not None:
        outside = (log_variance < clamp[0]) | (log_variance > clamp[1])
        share = xp.mean(xp.astype(outside, weighted.dtype))
    correlation, top = _sampled(student, teacher, log_variance, clamp, xp, arange)
    return LossStatistics(
        weighted_residual=weighted,
        squared_difference=squared,
        log_variance_mean=xp.mean(log_variance),
        log_variance_min=xp.min(log_variance),
        log_variance_max=xp.max(log_variance),
        log_variance_clamped=share,
        rank_correlation=correlation,
        effective_weight=xp.where(squared > 0, weighted / squared, squared),
        top_share=top,
    )


def places(shape: tuple[int, ...], arange: Callable[[int], Any]) -> tuple[Any, ...]:
    """Indices of up to `SAMPLE` elements, spread over an array of the shape; the same each time."""
    number = math.prod(shape)
    flat = arange(min(SAMPLE, number)) * _SPREAD % number
    indices = []
    for size in reversed(shape):
        indices.append(flat % size)
        flat = flat // size
    return tuple(reversed(indices))


def _ranks(values: Array, xp: Any) -> Array:
    """Ranks around their mean; what is equal shares the mean of its ranks."""
    ordered = xp.sort(values)
    left, right = (xp.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return xp.astype(left + right, values.dtype) - values.shape[0]


def _rank_correlation(first: Array, second: Array, xp: Any) -> Array:
    """Spearman's; 0 where one is constant."""
    a, b = _ranks(first, xp), _ranks(second, xp)
    size = xp.sqrt(xp.sum(a * a) * xp.sum(b * b))
    return xp.sum(a * b) / xp.where(size < 1, xp.ones_like(size), size)


def _sampled(
    student: Array,
    teacher: Array,
    sigma: Array,
    clamp: tuple[float, float] | None,
    xp: Any,
    arange: Callable[[int], Any],
) -> tuple[Array, Array]:
    """(rank_correlation, top_share), for σ in the arithmetic's dtype."""
    sigma = xp.reshape(sigma, (1,) * (student.ndim - sigma.ndim) + tuple(sigma.shape))
    at = places(student.shape, arange)
    difference = xp.astype(student[at], sigma.dtype) - xp.astype(teacher[at], sigma.dtype)
    at_places = xp.broadcast_to(sigma, student.shape)[at]
    weighted = (difference * xp.exp(-0.5 * clamped(at_places, clamp, xp=xp))) ** 2
    weighted = xp.reshape(weighted, (-1,))  # of features without axes too
    count = weighted.shape[0]
    top = xp.sum(xp.sort(weighted)[count - max(1, count // 100) :])
    share = xp.where(top == 0, xp.zeros_like(top), top / xp.sum(weighted))  # NaN stays NaN
    if math.prod(sigma.shape) < FEWEST:
        return xp.zeros_like(share), share
    if sigma.shape == student.shape:
        return _rank_correlation(at_places, difference**2, xp), share
    shared = tuple(axis for axis, size in enumerate(sigma.shape) if size != student.shape[axis])
    differences = xp.astype(student, sigma.dtype) - xp.astype(teacher, sigma.dtype)
    squares = xp.mean(differences**2, axis=shared, keepdims=True)
    at = places(sigma.shape, arange)
    return _rank_correlation(sigma[at], squares[at], xp), share
