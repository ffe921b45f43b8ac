"""Between torch tensors and the fused Triton kernels: the launch."""

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from ulfd.broadcasting import memory_order
from ulfd.kernels import triton_configs
from ulfd.losses import denominator
from ulfd.options import LossOptions
from ulfd_torch.memory import dense, in_order, materialised, outputs, sigma_in_order


@lru_cache
def _architecture(device: torch.device) -> str:
    """'sm_90', 'gfx942', ...: the key of `triton_configs.CONFIGS`."""
    if device.type != "cuda":
        return "interpreter"
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).split(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


@lru_cache(maxsize=1024)
def _launch(
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    log_variance: tuple[int, ...] | None,
    itemsize: int,
    config: triton_configs.Config,
) -> tuple[triton_configs.Launch, bool]:
    """The launch for dense features, and whether σ must be expanded to full size for it."""
    order = memory_order(shape, stride)
    return triton_configs.for_features(shape, log_variance, itemsize, config, order=order)


def _run(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | None,
    upstream: Tensor | None,
    options: LossOptions,
    *,
    loss: Tensor | None,
    gradients: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> None:
    """The kernels, on the tensors' device and the current stream."""
    from ulfd.kernels import triton_fused  # here, for it needs Triton and the operators do not

    by_student, by_teacher, by_sigma = gradients
    like = dense(student)
    itemsize = min(student.element_size(), teacher.element_size())
    launch, expanded = _launch(
        like.shape,
        like.stride(),
        None if log_variance is None else log_variance.shape,
        itemsize,
        triton_configs.config(_architecture(like.device), itemsize),
    )
    given, by_given = log_variance, by_sigma
    if log_variance is not None and expanded:  # its gradient is summed below
        given = torch.empty_like(like, dtype=log_variance.dtype)
        given.copy_(log_variance.expand_as(like))
        by_given = None if by_sigma is None else torch.empty_like(like, dtype=torch.float32)
    elif log_variance is not None:
        given = sigma_in_order(log_variance, like)

    def scratch(shape: Sequence[int]) -> Tensor:
        return like.new_empty(prod(shape), dtype=torch.float32)

    with torch.cuda.device_of(like):
        triton_fused.run(
            launch,
            student=like,
            teacher=in_order(teacher, like.stride()),
            log_variance=given,
            upstream=upstream,
            by_student=by_student,
            by_teacher=by_teacher,
            by_sigma=by_given,
            loss=loss,
            losses=None if loss is None else scratch((launch.grid,)),
            sums=None if by_given is None or launch.sums is None else scratch(launch.sums),
            scale=options.weight / denominator(student.shape, options.reduction),
            options=options,
        )
    if by_sigma is not None and by_given is not None and expanded:
        by_sigma.copy_(by_given.sum_to_size(by_sigma.shape))


def compute(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | None,
    upstream: Tensor | None,
    options: LossOptions,
    *,
    value: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss and gradients; what is not wanted comes back empty."""
    student, teacher, log_variance, upstream = map(
        materialised, (student, teacher, log_variance, upstream)
    )
    loss = student.new_empty((), dtype=torch.float32)
    gradients = outputs(student, teacher, log_variance, needs)
    if student.numel() == 0:  # a sum over nothing
        return loss.zero_(), gradients[0], gradients[1], gradients[2].zero_()
    wanted = [output if need else None for output, need in zip(gradients, needs, strict=True)]
    if log_variance is None:
        wanted[2] = None
    if value or any(output is not None for output in wanted):
        _run(
            student,
            teacher,
            log_variance,
            upstream,
            options,
            loss=loss if value else None,
            gradients=(wanted[0], wanted[1], wanted[2]),
        )
    return loss, *gradients
