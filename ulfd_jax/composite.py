"""The loss and its gradients in plain JAX operations: any platform, any transformation.

The loss is the core's own function. The gradients are JAX's of it: XLA compiles them at least as
well as the closed form, and there is one definition less.
"""

from dataclasses import dataclass
from typing import Any

import jax
from jax import numpy as jnp
from jax.typing import DTypeLike

from ulfd import losses

Array = jax.Array
Needs = tuple[bool, bool, bool]


def loss(student: Array, teacher: Array, log_variance: Array | None, **options: Any) -> Array:
    """`ulfd_jax.ulfd_loss`: the core's function over JAX."""
    return losses.ulfd_loss(
        student, teacher, log_variance, xp=jnp, stop_gradient=jax.lax.stop_gradient, **options
    )


@dataclass(frozen=True)
class Options:
    """What a kernel knows while it compiles.

    Args:
        scale: 1 / denominator. λ is no part of it: it may change from step to step.
        prior_weight, beta, clamp: as in `ulfd.losses.element_loss`.
    """

    scale: float
    prior_weight: float = 2.0
    beta: float = 0.0
    clamp: tuple[float, float] | None = None


def value(options: Options, student: Array, teacher: Array, log_variance: Array | None) -> Array:
    """The scaled sum of the elements' losses, what every kernel computes."""
    elements = losses.element_loss(
        student,
        teacher,
        log_variance,
        xp=jnp,
        prior_weight=options.prior_weight,
        beta=options.beta,
        clamp=options.clamp,
        stop_gradient=jax.lax.stop_gradient,
    )
    return jnp.sum(elements) * options.scale


def gradients(
    options: Options,
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
    options: Options,
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


def scaled(options: Options, upstream: Array, *gradients: Array | None) -> tuple[Array | None, ...]:
    """Gradients that were computed under upstream 1, under `upstream`."""
    return tuple(None if gradient is None else upstream * gradient for gradient in gradients)


def compute_dtype(*arrays: Array | None) -> DTypeLike:
    """The dtype of the arithmetic and of the loss: float32, or float64 for float64 inputs."""
    return losses.compute_dtype(*arrays, xp=jnp)
