"""`loss_statistics`: what to log of the loss, beside its value, and what to worry about."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ulfd_torch.functional import ulfd_loss

SAMPLE = 4096
"""How many elements the rank correlation and the top share look at: the same ones every time."""
FEWEST = 32
"""A σ of fewer elements has no rank correlation, which chance would make."""
_SPREAD = 2654435761  # a prime above every number of elements, whose multiples jump through them
NEGATIVE, CONCENTRATED = -0.1, 0.6
REMEDY = (
    "The official UEM's global skip does this, for it ties an element's weight to exp(activation): "
    "take UEM(C), or UEM.official(C, global_skip=False)."
)


class LossStatistics(NamedTuple):
    """Detached 0-d tensors on the features' device; to read one is to wait for the device.

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

    weighted_residual: Tensor
    squared_difference: Tensor
    log_variance_mean: Tensor
    log_variance_min: Tensor
    log_variance_max: Tensor
    log_variance_clamped: Tensor
    rank_correlation: Tensor
    effective_weight: Tensor
    top_share: Tensor

    def as_dict(self) -> dict[str, float]:
        """{name: number}; waits for the device once, for all of them.

        Warns with what `concern` says.
        """
        numbers = dict(zip(self._fields, torch.stack(list(self)).tolist(), strict=True))
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
    return None


def _places(shape: torch.Size, device: torch.device) -> tuple[Tensor, ...]:
    """Indices of up to `SAMPLE` elements, spread over an array of the shape; the same each time."""
    number = shape.numel()
    flat = torch.arange(min(SAMPLE, number), dtype=torch.int64, device=device) * _SPREAD % number
    indices = []
    for size in reversed(shape):
        indices.append(flat % size)
        flat = flat // size
    return tuple(reversed(indices))


def _ranks(values: Tensor) -> Tensor:
    """Ranks around their mean; what is equal shares the mean of its ranks."""
    ordered = values.sort().values
    twice = torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)
    return twice.to(values.dtype) - values.numel()


def _rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's; 0 where one is constant."""
    a, b = _ranks(first), _ranks(second)
    size = (a.square().sum() * b.square().sum()).sqrt()
    return (a * b).sum() / size.clamp(min=1.0)


def _sampled(
    student: Tensor, teacher: Tensor, sigma: Tensor, clamp: tuple[float, float] | None
) -> tuple[Tensor, Tensor]:
    """(rank_correlation, top_share), for σ in the arithmetic's dtype."""
    sigma = sigma.reshape((1,) * (student.dim() - sigma.dim()) + sigma.shape)
    places = _places(student.shape, student.device)
    difference = student[places].to(sigma.dtype) - teacher[places].to(sigma.dtype)
    at_places = sigma.expand(student.shape)[places]
    limited = at_places if clamp is None else at_places.clamp(*clamp)
    weighted = (difference * (-0.5 * limited).exp()).square()
    top = weighted.topk(max(1, weighted.numel() // 100)).values.sum()
    share = torch.where(top > 0, top / weighted.sum(), torch.zeros_like(top))
    if sigma.numel() < FEWEST:
        return torch.zeros_like(share), share
    if sigma.shape == student.shape:
        return _rank_correlation(at_places, difference.square()), share
    shared = [axis for axis, size in enumerate(sigma.shape) if size != student.shape[axis]]
    squares = (student.to(sigma.dtype) - teacher.to(sigma.dtype)).square().mean(shared, True)
    places = _places(sigma.shape, sigma.device)
    return _rank_correlation(sigma[places], squares[places]), share


def loss_statistics(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | float | None = None,
    *,
    clamp: tuple[float, float] | None = None,
) -> LossStatistics:
    """The two parts of Eq. 9, and what became of σ.

    Costs the forward pass of the loss, with σ and without, by the kernel that serves the inputs,
    two readings of σ, and a look at a sample of the features, or at all where elements share
    σ. Nothing waits for the device, no graph is kept, `torch.compile` makes no break. Under
    DistributedDataParallel the numbers are this rank's; average, and take the least and largest,
    where you log.

    >>> import torch
    >>> student, teacher = torch.zeros(2, 3), torch.ones(2, 3)
    >>> found = loss_statistics(student, teacher, torch.tensor([[0.0], [-20.0]]), clamp=(0, 10))
    >>> found.log_variance_min
    tensor(-20.)
    >>> found.as_dict()["log_variance_clamped"]
    0.5

    Args: as in `ulfd_torch.ulfd_loss`; without log_variance σ is 0.
    Returns:
        float32, or float64 if an input is.
    Raises:
        ValueError, TypeError: as `ulfd_torch.ulfd_loss`.
    """
    given = 0.0 if log_variance is None else log_variance
    with torch.no_grad():
        weighted = ulfd_loss(student, teacher, given, prior_weight=0.0, clamp=clamp)
        dtype = weighted.dtype
        sigma = torch.as_tensor(given, dtype=dtype, device=weighted.device)
        low, high = sigma.aminmax()
        clamped = torch.zeros_like(weighted)
        if clamp is not None:
            clamped = ((sigma < clamp[0]) | (sigma > clamp[1])).mean(dtype=dtype)
        squared = ulfd_loss(student, teacher).to(dtype)
        correlation, top = _sampled(student, teacher, sigma, clamp)
        return LossStatistics(
            weighted_residual=weighted,
            squared_difference=squared,
            log_variance_mean=sigma.mean(),
            log_variance_min=low,
            log_variance_max=high,
            log_variance_clamped=clamped,
            rank_correlation=correlation,
            effective_weight=torch.where(squared > 0, weighted / squared, squared),
            top_share=top,
        )
