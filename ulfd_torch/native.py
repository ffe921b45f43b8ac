"""Between torch tensors and the native CPU kernel: the call."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ulfd import checks
from ulfd.broadcasting import memory_order
from ulfd.kernels.cpu import library
from ulfd.options import LossOptions
from ulfd_torch.memory import (
    NAMES,
    dense,
    in_order,
    materialised,
    outputs,
    reused_like,
    sigma_in_order,
)


@lru_cache(maxsize=1024)
def _loop(
    shape: tuple[int, ...], stride: tuple[int, ...], log_variance: tuple[int, ...] | None
) -> library.Loop | None:
    return library.loop(shape, log_variance, memory_order(shape, stride))


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
    student, teacher = materialised(student), materialised(teacher)
    log_variance, upstream = materialised(log_variance), materialised(upstream)
    like = dense(student)
    names = [NAMES[like.dtype], NAMES[teacher.dtype]]
    given, sigma = log_variance, None
    if log_variance is not None:
        names.append(NAMES[log_variance.dtype])
        sigma = log_variance.shape
    computed = torch.float64 if "float64" in names else torch.float32
    loss = like.new_empty((), dtype=computed)
    gradients = outputs(like, teacher, log_variance, needs, reused_like)
    by_given = gradients[2]
    loop = _loop(like.shape, like.stride(), sigma)
    if loop is None and log_variance is not None:  # its gradient is summed below, then rounded
        loop = _loop(like.shape, like.stride(), like.shape)
        names[2] = checks.dtype_name(computed)
        given = torch.empty_like(like, dtype=computed).copy_(log_variance.expand_as(like))
        by_given = reused_like(given)
    elif log_variance is not None:
        given = sigma_in_order(log_variance, like)
    assert loop is not None
    arriving = upstream if upstream is None else upstream.to(computed).contiguous()
    inputs = (like, in_order(teacher, like.stride()), given, arriving)
    results = (loss, gradients[0], gradients[1], by_given)
    wanted = (value, needs[0], needs[1], needs[2] and given is not None)
    library.run(
        loop,
        pointers=[
            *(None if tensor is None else tensor.data_ptr() for tensor in inputs),
            *(out.data_ptr() if want else None for out, want in zip(results, wanted, strict=True)),
        ],
        dtypes=names,
        shape=student.shape,
        options=options,
        threads=torch.get_num_threads(),
    )
    if wanted[3] and by_given is not gradients[2]:
        gradients[2].copy_(by_given.sum_to_size(gradients[2].shape))
    return loss, *gradients
