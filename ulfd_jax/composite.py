"""The loss and its gradients in plain JAX operations: any platform, any transformation.

The loss is the core's own function. The gradients are JAX's of it: XLA compiles them at least as
well as the closed form, and there is one definition less.
"""

import jax
from jax import numpy as jnp
from jax.typing import DTypeLike

from ulfd import losses
from ulfd.options import LossOptions

Array = jax.Array
Needs = tuple[bool, bool, bool]


def value(
    options: LossOptions, student: Array, teacher: Array, log_variance: Array | None
) -> Array:
    """The core's function over JAX.

    λ of the options is 1 here and wherever a kernel compiles them in: it may change from step to
    step, and multiplies afterwards.
    """
    if log_variance is not None:  # for who has forbidden JAX to add axes by itself
        lead = (1,) * (student.ndim - log_variance.ndim)
        log_variance = jnp.reshape(log_variance, lead + log_variance.shape)
    return losses.ulfd_loss(
        student, teacher, log_variance, options, xp=jnp, stop_gradient=jax.lax.stop_gradient
    )


def gradients(
    options: LossOptions,
    needs: Needs,
    upstream: Array,
    student: Array,
    teacher: Array,
    log_variance: Array | None,
) -> tuple[Array | None, ...]:
    """The gradients of `value` under `upstream`, each in its input's shape and dtype.

    Args:
        needs: which are wanted, of student, teacher and σ; the others are None.
        upstream: the gradient arriving at the value, a scalar.
    """
    return value_and_gradients(options, needs, upstream, student, teacher, log_variance)[1:]


def value_and_gradients(
    options: LossOptions,
    needs: Needs,
    upstream: Array,
    student: Array,
    teacher: Array,
    log_variance: Array | None,
) -> tuple[Array | None, ...]:
    """`value` and `gradients` of the same inputs."""
    result, pull = jax.vjp(lambda *inputs: value(options, *inputs), student, teacher, log_variance)
    found = pull(upstream.astype(result.dtype))
    return result, *(
        gradient if need else None for gradient, need in zip(found, needs, strict=True)
    )


def compute_dtype(*arrays: Array | None) -> DTypeLike:
    """The dtype of the arithmetic and of the loss: float32, or float64 for float64 inputs."""
    return losses.compute_dtype(*arrays, xp=jnp)
