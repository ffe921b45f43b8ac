"""The fused Triton kernels in JAX, through jax-triton: one pass over memory, on CUDA and ROCm.

The functions are those of `ulfd_jax.composite` for one architecture; `ulfd_jax.derivatives` makes
them differentiable. JAX's arrays are contiguous, so there is nothing to lay out: features are
walked in the order of their axes, channels-last ones (B, H, W, C) just like (B, C, H, W).
"""

import os
from functools import cache, partial
from math import prod
from types import ModuleType
from typing import Any

import jax
from jax import numpy as jnp

from ulfd.kernels import triton_configs
from ulfd.losses import denominator
from ulfd.options import LossOptions
from ulfd_jax import composite
from ulfd_jax.composite import Array, Needs
from ulfd_jax.derivatives import Implementation

Shape = jax.ShapeDtypeStruct
ABSENT = Shape((1,), jnp.float32)  # memory that stands in for an output that is not wanted


@cache
def _jax_triton() -> ModuleType:
    """jax-triton. Importing it sets TRITON_CACHE_DIR, which torch's kernels in the same process
    need as it was."""
    before = os.environ.get("TRITON_CACHE_DIR")
    try:
        import jax_triton
    finally:
        if before is None:
            os.environ.pop("TRITON_CACHE_DIR", None)
        else:
            os.environ["TRITON_CACHE_DIR"] = before
    return jax_triton


def _call(architecture: str, kernel: Any, *arrays: Array, **arguments: Any) -> list[Array]:
    """One launch. The capability comes along, so that the GPU need not be there."""
    capability = int(architecture[3:]) if architecture.startswith("sm_") else None
    return _jax_triton().triton_call(
        *arrays,
        kernel=kernel,
        compute_capability=capability,
        **arguments,
    )


def _run(
    architecture: str,
    options: LossOptions,
    needs: Needs,
    upstream: Array | None,
    student: Array,
    teacher: Array,
    log_variance: Array | None,
    *,
    value: bool,
) -> tuple[Any, ...]:
    """The value and the gradients that are wanted, None for the others."""
    from ulfd.kernels import triton_fused  # here, for it needs Triton and this module does not
    from ulfd_jax import triton_kernels

    itemsize = min(student.dtype.itemsize, teacher.dtype.itemsize)
    shape = None if log_variance is None else log_variance.shape
    launch, expanded = triton_configs.for_features(
        student.shape, shape, itemsize, triton_configs.config(architecture, itemsize)
    )
    by_student, by_teacher, by_sigma = needs
    given = log_variance
    direct = ABSENT
    if given is not None and expanded:
        given = jnp.broadcast_to(given, student.shape)
    if given is not None and by_sigma:
        direct = Shape(given.shape, jnp.float32 if expanded else given.dtype)
        if launch.sums is not None:
            direct = Shape((prod(launch.sums),), jnp.float32)
    bits = triton_fused.scale_bits(1 / denominator(student.shape, options.reduction))
    constants = triton_fused.constants(launch, options)
    present = (given is not None, upstream is not None, *needs, value)
    *gradients, losses = _call(
        architecture,
        triton_kernels.KERNELS[launch.kernel],
        student,
        teacher,
        student if given is None else given,
        student if upstream is None else upstream,
        out_shape=(
            Shape(student.shape, student.dtype) if by_student else ABSENT,
            Shape(teacher.shape, teacher.dtype) if by_teacher else ABSENT,
            direct,
            Shape((launch.grid,), jnp.float32) if value else ABSENT,
        ),
        grid=(launch.grid,),
        num_warps=launch.warps,
        GIVEN=present,
        scale_bits=bits,
        **launch.integers,
        **constants,
    )
    loss = None
    summed = by_sigma and launch.sums is not None
    if value or summed:
        grid, integers, fixed = triton_fused.finish_launch(launch, loss=value, sums=summed)
        sigma = (
            Shape(log_variance.shape, log_variance.dtype) if log_variance is not None else ABSENT
        )
        loss, total = _call(
            architecture,
            triton_kernels.finish,
            losses,
            gradients[2],
            out_shape=(Shape((), jnp.float32), sigma if summed else ABSENT),
            grid=(grid,),
            num_warps=triton_fused.FINISH_WARPS,
            GIVEN=(value, summed),
            scale_bits=bits,
            **integers,
            **fixed,
        )
        if summed:
            gradients[2] = total
    if expanded and by_sigma and log_variance is not None:
        gradients[2] = _sum_to(gradients[2], log_variance)
    wanted = (found if need else None for found, need in zip(gradients, needs, strict=True))
    return (loss if value else None), *wanted


def _sum_to(gradient: Array, like: Array) -> Array:
    """σ's gradient summed over the axes along which σ was expanded."""
    pull = jax.linear_transpose(
        partial(jnp.broadcast_to, shape=gradient.shape), Shape(like.shape, gradient.dtype)
    )
    return pull(gradient)[0].astype(like.dtype)


def _value(architecture: str, options: LossOptions, *inputs: Any) -> Array:
    if inputs[0].size == 0:  # a sum over nothing
        return composite.value(options, *inputs)
    return _run(architecture, options, (False,) * 3, None, *inputs, value=True)[0]


def _gradients(
    architecture: str, options: LossOptions, needs: Needs, upstream: Array, *inputs: Any
) -> tuple[Array | None, ...]:
    if inputs[0].size == 0:
        return composite.gradients(options, needs, upstream, *inputs)
    return _run(architecture, options, needs, upstream, *inputs, value=False)[1:]


def _value_and_gradients(
    architecture: str, options: LossOptions, needs: Needs, upstream: Array, *inputs: Any
) -> tuple[Array | None, ...]:
    if inputs[0].size == 0:
        return composite.value_and_gradients(options, needs, upstream, *inputs)
    return _run(architecture, options, needs, upstream, *inputs, value=True)


@cache
def implementation(architecture: str) -> Implementation:
    """The kernels for "sm_90", "gfx942", ...; see `ulfd.kernels.triton_configs`."""
    return Implementation(
        partial(_value, architecture),
        partial(_gradients, architecture),
        partial(_value_and_gradients, architecture),
    )
