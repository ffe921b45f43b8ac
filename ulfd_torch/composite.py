"""The loss and its gradients in plain torch operations: any device, any order of derivative.

The loss is the core's own function; its gradients are the closed form of `ulfd.gradients`, here
over torch, because the kernels' second derivatives are taken through them.
"""

from typing import Any

import torch
from array_api_compat import torch as xp
from torch import Tensor

from ulfd import losses


def loss(student: Tensor, teacher: Tensor, log_variance: Tensor | None, **options: Any) -> Tensor:
    """The core's function over torch: differentiable to any order, on any device."""
    return losses.ulfd_loss(
        student, teacher, log_variance, xp=xp, stop_gradient=torch.Tensor.detach, **options
    )


def gradients(
    upstream: Tensor | None,
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | None,
    *,
    prior_weight: float = 2.0,
    weight: float = 1.0,
    reduction: str = "mean",
    beta: float = 0.0,
    clamp: tuple[float, float] | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of `loss` (see `ulfd.gradients`), each in its input's shape and dtype.

    Args:
        upstream: the gradient arriving at the loss, in the loss's shape; None is 1.
        others: as in `ulfd.losses.ulfd_loss`.
    """
    dtype = losses.compute_dtype(student, teacher, log_variance, xp=xp)
    difference = student.to(dtype) - teacher.to(dtype)
    factor: Tensor | float = weight / losses.denominator(student.shape, reduction)
    if upstream is not None:
        factor = upstream.to(dtype) * factor
    if log_variance is None:
        gradient = 2 * factor * difference
        return gradient.to(student.dtype), (-gradient).to(teacher.dtype), None
    given = log_variance.to(dtype)
    sigma = losses.clamped(given, clamp, xp=xp)
    if beta != 0.0:
        factor = factor * torch.exp(beta * sigma).detach()
    precision = torch.exp(-sigma)
    gradient = 2 * factor * precision * difference
    by_sigma = factor * (prior_weight - precision * (difference * difference))
    if clamp is not None:
        acts = (given < clamp[0]) | (given > clamp[1])
        by_sigma = torch.where(acts, torch.zeros_like(by_sigma), by_sigma)
    return (
        gradient.to(student.dtype),
        (-gradient).to(teacher.dtype),
        by_sigma.sum_to_size(log_variance.shape).to(log_variance.dtype),
    )


def value_and_gradients(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | None,
    upstream: Tensor | None,
    *,
    teacher_gradient: bool = True,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """`loss` and `gradients` of the same inputs; the teacher's only where asked for."""
    value = loss(student, teacher, log_variance, **options)
    by_student, by_teacher, by_sigma = gradients(
        upstream, student, teacher, log_variance, **options
    )
    return value, by_student, by_teacher if teacher_gradient else None, by_sigma
