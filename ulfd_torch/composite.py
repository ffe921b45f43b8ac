"""The loss and its gradients in plain torch operations: any device, any order of derivative.

Both are the core's own functions. The kernels' second derivatives are taken through `gradients`.
"""

import torch
from array_api_compat import torch as xp
from torch import Tensor

from ulfd import losses
from ulfd.gradients import closed_form
from ulfd.options import LossOptions


def loss(
    student: Tensor, teacher: Tensor, log_variance: Tensor | None, options: LossOptions
) -> Tensor:
    """`ulfd.losses.ulfd_loss` over torch: differentiable to any order, on any device."""
    return losses.ulfd_loss(
        student, teacher, log_variance, options, xp=xp, stop_gradient=torch.Tensor.detach
    )


def gradients(
    upstream: Tensor | None,
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | None,
    options: LossOptions,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of `loss`, each in its input's shape and dtype.

    Args:
        upstream: the gradient arriving at the loss, in the loss's shape; None is 1.
        others: as in `loss`.
    """
    dtype = losses.compute_dtype(student, teacher, log_variance, xp=xp)
    by_student, by_teacher, by_sigma = closed_form(
        student,
        teacher,
        log_variance,
        options,
        upstream=1.0 if upstream is None else upstream.to(dtype),
        dtype=dtype,
        xp=xp,
        stop_gradient=torch.Tensor.detach,
    )
    return (
        by_student.to(student.dtype),
        by_teacher.to(teacher.dtype),
        None if log_variance is None else by_sigma.to(log_variance.dtype),
    )


def value_and_gradients(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | None,
    upstream: Tensor | None,
    options: LossOptions,
    *,
    teacher_gradient: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """`loss` and `gradients` of the same inputs; the teacher's only where asked for."""
    value = loss(student, teacher, log_variance, options)
    by_student, by_teacher, by_sigma = gradients(upstream, student, teacher, log_variance, options)
    return value, by_student, by_teacher if teacher_gradient else None, by_sigma
