"""Between torch tensors and the native CPU kernel: the call."""

from collections.abc import Sequence
from typing import Any

import torch
from array_api_compat import torch as xp
from torch import Tensor

from ulfd.broadcasting import memory_order
from ulfd.checks import dtype_name
from ulfd.kernels.cpu import library
from ulfd.losses import compute_dtype, denominator
from ulfd_torch.memory import dense, in_order, outputs, sigma_like


def compute(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | None,
    upstream: Tensor | None,
    options: dict[str, Any],
    *,
    value: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss and gradients; what is not wanted comes back empty."""
    computed = compute_dtype(student, teacher, log_variance, xp=xp)
    loss = torch.empty((), dtype=computed)
    gradients = outputs(student, teacher, log_variance, needs)
    like = dense(student)
    order = memory_order(like.shape, like.stride())
    loop = library.loop(like.shape, None if log_variance is None else log_variance.shape, order)
    given, by_given = log_variance, gradients[2]
    if log_variance is not None:
        if loop is not None:
            given = in_order(log_variance, sigma_like(log_variance, like))
        else:  # its gradient is summed below
            given = torch.empty_like(like, dtype=computed).copy_(log_variance.expand_as(like))
            by_given = torch.empty_like(given)
            loop = library.loop(like.shape, like.shape)
    assert loop is not None
    inputs = [like, in_order(teacher, like)] + ([] if given is None else [given])
    arriving = None if upstream is None else upstream.to(computed).contiguous()
    wanted = (value, needs[0], needs[1], needs[2] and given is not None)
    results = (loss, gradients[0], gradients[1], by_given)
    library.run(
        loop,
        pointers=[
            *(tensor.data_ptr() for tensor in inputs),
            *([None] * (3 - len(inputs))),
            None if arriving is None else arriving.data_ptr(),
            *(out.data_ptr() if want else None for out, want in zip(results, wanted, strict=True)),
        ],
        dtypes=[dtype_name(tensor.dtype) for tensor in inputs],
        scale=options["weight"] / denominator(student.shape, options["reduction"]),
        prior_weight=options["prior_weight"],
        beta=options["beta"],
        clamp=options["clamp"],
        threads=torch.get_num_threads(),
    )
    if wanted[3] and by_given is not gradients[2]:
        gradients[2].copy_(by_given.sum_to_size(gradients[2].shape))
    return loss, *gradients
