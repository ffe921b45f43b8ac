"""How tensors lie in memory when a kernel walks over it.

Features are used where they lie if they are dense in any order of the axes; a student with gaps,
or a teacher or full-size σ in another order than the student's, is copied once. Gradients come
in the student's order.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ulfd.broadcasting import memory_order
from ulfd.kernels.cpu import buffers

NAMES = {getattr(torch, name): name for name in ("float32", "float64", "float16", "bfloat16")}
"""dtypes' names, which are costly to ask torch for."""


Like = Callable[..., Tensor]


def reused_like(features: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """`torch.empty_like` of dense features on the CPU; large ones in memory that is used again.

    Like that of a tensor made from a NumPy array, a large one's storage cannot be resized.
    """
    dtype = dtype or features.dtype
    size = features.numel() * dtype.itemsize
    memory = buffers.take(size) if size >= buffers.SMALLEST else None
    if memory is None:
        return torch.empty_like(features, dtype=dtype)
    flat = torch.frombuffer(memory, dtype=dtype, count=features.numel())
    return flat.as_strided_(features.shape, features.stride())  # in place: no view of another


def materialised(tensor: Any) -> Any:
    """The tensor itself; a copy where PyTorch has put off a negation, or allocated nothing for
    zeros, so that its memory is not what it says."""
    if tensor is None or not (tensor.is_neg() or tensor._is_zerotensor()):
        return tensor
    return tensor.resolve_neg().clone()


def dense(student: Tensor) -> Tensor:
    """The tensor itself if its elements fill one stretch of memory, otherwise a copy."""
    if not student.is_contiguous() and memory_order(student.shape, student.stride()) is None:
        return torch.empty_like(student).copy_(student)
    return student


def sigma_stride(
    shape: Sequence[int], features: Sequence[int], stride: Sequence[int]
) -> tuple[int, ...]:
    """The strides of σ's shape with its axes in the memory order of dense features."""
    if shape == features:
        return tuple(stride)
    lead = len(features) - len(shape)
    order = memory_order(features, stride) or range(len(features))
    step, strides = 1, [0] * len(shape)
    for axis in reversed(order):
        if axis >= lead:
            strides[axis - lead] = step
            step = step * shape[axis - lead]
    return tuple(strides)


_sigma_stride = lru_cache(maxsize=1024)(sigma_stride)  # of sizes that are known


def in_order(tensor: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The tensor itself if its memory is laid out by these strides, otherwise a copy that is."""
    if tensor.stride() == stride or all(
        mine == theirs or size == 1
        for size, mine, theirs in zip(tensor.shape, tensor.stride(), stride, strict=True)
    ):
        return tensor
    return tensor.new_empty_strided(tensor.shape, stride).copy_(tensor)


def sigma_in_order(log_variance: Tensor, features: Tensor) -> Tensor:
    """σ itself if its axes lie in the order of dense features', otherwise a copy of it."""
    shape = log_variance.shape
    return in_order(log_variance, _sigma_stride(shape, features.shape, features.stride()))


def outputs(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | None,
    needs: Sequence[bool],
    empty_like: Like = torch.empty_like,
) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for the gradients, in the student's order; empty tensors where not needed."""
    if not any(needs):
        nothing = student.new_empty(0)
        return nothing, nothing, nothing
    like = (empty_like if needs[0] else torch.empty_like)(student)
    by_student = like if needs[0] else student.new_empty(0)
    by_teacher = empty_like(like, dtype=teacher.dtype) if needs[1] else teacher.new_empty(0)
    if log_variance is None or not needs[2]:
        return by_student, by_teacher, student.new_empty(0)
    if log_variance.shape == like.shape:
        return by_student, by_teacher, empty_like(like, dtype=log_variance.dtype)
    stride = sigma_stride(log_variance.shape, like.shape, like.stride())
    return by_student, by_teacher, log_variance.new_empty_strided(log_variance.shape, stride)
