"""`loss_statistics`: what to log of the loss, beside its value."""

from typing import NamedTuple

import torch
from torch import Tensor

from ulfd_torch.functional import ulfd_loss


class LossStatistics(NamedTuple):
    """Detached 0-d tensors on the features' device; to read one is to wait for the device.

    Where no clamp acts, the mean of Eq. 9 is weighted_residual + 2 · log_variance_mean.

    Args:
        weighted_residual: mean of exp(−σ)·(z − ẑ)², σ limited; k where σ is the best number.
        squared_difference: mean of (z − ẑ)².
        log_variance_mean, log_variance_min, log_variance_max: of σ as it was predicted.
        log_variance_clamped: the share of σ's elements on which the clamp acts.
    """

    weighted_residual: Tensor
    squared_difference: Tensor
    log_variance_mean: Tensor
    log_variance_min: Tensor
    log_variance_max: Tensor
    log_variance_clamped: Tensor

    def as_dict(self) -> dict[str, float]:
        """{name: number}; waits for the device once, for all of them."""
        return dict(zip(self._fields, torch.stack(list(self)).tolist(), strict=True))


def loss_statistics(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | float | None = None,
    *,
    clamp: tuple[float, float] | None = None,
) -> LossStatistics:
    """The two parts of Eq. 9, and what became of σ.

    Costs the forward pass of the loss, with σ and without, by the kernel that serves the inputs,
    and two readings of σ. Nothing waits for the device, no graph is kept, `torch.compile` makes no
    break. Under DistributedDataParallel the numbers are this rank's; average, and take the least
    and largest, where you log.

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
        return LossStatistics(
            weighted_residual=weighted,
            squared_difference=ulfd_loss(student, teacher).to(dtype),
            log_variance_mean=sigma.mean(),
            log_variance_min=low,
            log_variance_max=high,
            log_variance_clamped=clamped,
        )
