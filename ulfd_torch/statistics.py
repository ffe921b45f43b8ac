"""`loss_statistics`: what to log of the loss; the numbers are `ulfd.statistics`'."""

from functools import partial

import array_api_compat.torch as xp
import torch
from torch import Tensor

from ulfd import statistics
from ulfd.statistics import LossStatistics
from ulfd_torch.functional import ulfd_loss


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
        return statistics.loss_statistics(
            student,
            teacher,
            torch.as_tensor(given, dtype=weighted.dtype, device=weighted.device),
            weighted,
            ulfd_loss(student, teacher).to(weighted.dtype),
            clamp=clamp,
            xp=xp,
            arange=partial(torch.arange, dtype=torch.int64, device=student.device),
        )
