"""The native CPU kernel in JAX, through XLA's foreign function interface: one pass, no copies.

The functions are those of `ulfd_jax.composite`; `ulfd_jax.derivatives` makes them differentiable.
XLA hands over its own buffers, contiguous in the order of the axes, and the number of its threads.
"""

from functools import cache, partial
from math import inf
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from ulfd.kernels.cpu import library
from ulfd.losses import denominator
from ulfd.options import LossOptions
from ulfd_jax.composite import Array, Needs, compute_dtype
from ulfd_jax.derivatives import Implementation

Shape = jax.ShapeDtypeStruct
TARGET = "ulfd_fused"


@cache
def _register() -> None:
    """Tells XLA, once, where the kernel is."""
    assert library.LIBRARY is not None, library.MISSING
    capsule = jax.ffi.pycapsule(library.LIBRARY.ulfd_xla)
    jax.ffi.register_ffi_target(TARGET, capsule, platform="cpu")


def _run(
    options: LossOptions,
    needs: Needs,
    upstream: Array | None,
    student: Array,
    teacher: Array,
    log_variance: Array | None,
    *,
    value: bool,
) -> tuple[Array | None, ...]:
    """The value and the gradients that are wanted, None for the others."""
    _register()
    computed = compute_dtype(student, teacher, log_variance)
    loop = library.loop(student.shape, None if log_variance is None else log_variance.shape)
    expand = None
    given = log_variance
    if loop is None and log_variance is not None:  # its gradient is summed by the transpose below
        expand = partial(jnp.broadcast_to, shape=student.shape)
        given = expand(log_variance.astype(computed))
        loop = library.loop(student.shape, student.shape)
    assert loop is not None
    by_sigma = needs[2] and given is not None
    wanted = (value, needs[0], needs[1], by_sigma)
    candidates: Any = (Shape((), computed), student, teacher, given)
    low, high = options.clamp or (-inf, inf)
    found = jax.ffi.ffi_call(
        TARGET,
        [
            Shape(like.shape, like.dtype)
            for like, want in zip(candidates, wanted, strict=True)
            if want
        ],
    )(
        *(array for array in (student, teacher, given, upstream) if array is not None),
        present=np.array([given is not None, upstream is not None, *wanted], np.int64),
        runs=np.array(loop[1:], np.int64),
        form=np.int64(loop.form),
        scale=np.float64(1 / denominator(student.shape, options.reduction)),
        prior_weight=np.float64(options.prior_weight),
        beta=np.float64(options.beta),
        low=np.float64(low),
        high=np.float64(high),
    )
    outputs = iter(found)
    value_out, *gradients = (next(outputs) if want else None for want in wanted)
    if by_sigma and expand is not None and log_variance is not None:
        pull = jax.linear_transpose(expand, Shape(log_variance.shape, computed))
        gradients[2] = pull(gradients[2])[0].astype(log_variance.dtype)
    return value_out, *gradients


def _value(options: LossOptions, *inputs: Any) -> Any:
    return _run(options, (False, False, False), None, *inputs, value=True)[0]


def _gradients(
    options: LossOptions, needs: Needs, upstream: Array, *inputs: Any
) -> tuple[Any, ...]:
    return _run(options, needs, upstream, *inputs, value=False)[1:]


def _value_and_gradients(
    options: LossOptions, needs: Needs, upstream: Array, *inputs: Any
) -> tuple[Any, ...]:
    return _run(options, needs, upstream, *inputs, value=True)


def implementation(architecture: str) -> Implementation:
    """The kernel; it picks the processor's instruction set by itself."""
    return Implementation(_value, _gradients, _value_and_gradients, saves=True)
