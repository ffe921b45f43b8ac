"""`loss_statistics`: what to log of the loss; the numbers are `ulfd.statistics`'."""

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import ArrayLike

from ulfd import statistics
from ulfd.statistics import LossStatistics
from ulfd_jax.functional import ulfd_loss


def loss_statistics(
    student: ArrayLike,
    teacher: ArrayLike,
    log_variance: ArrayLike | None = None,
    *,
    clamp: tuple[float, float] | None = None,
) -> LossStatistics:
    """The two parts of Eq. 9, and what became of σ.

    Costs the forward pass of the loss, with σ and without, two readings of σ, and a look at a
    sample of the features, or at all where elements share σ. Works under jit, where the clamp is
    static; has no gradients. `as_dict`, outside, waits for the device.

    >>> from jax import numpy as jnp
    >>> student, teacher = jnp.zeros((2, 3)), jnp.ones((2, 3))
    >>> found = loss_statistics(student, teacher, jnp.array([[0.0], [-20.0]]), clamp=(0, 10))
    >>> found.as_dict()["log_variance_clamped"]
    0.5

    Args: as in `ulfd_jax.ulfd_loss`; without log_variance σ is 0.
    Returns:
        float32, or float64 if an input is.
    Raises:
        ValueError, TypeError: as `ulfd_jax.ulfd_loss`.
    """
    given = 0.0 if log_variance is None else log_variance
    student, teacher, given = jax.lax.stop_gradient((student, teacher, given))
    weighted = ulfd_loss(student, teacher, given, prior_weight=0.0, clamp=clamp)
    return statistics.loss_statistics(
        jnp.asarray(student),
        jnp.asarray(teacher),
        jnp.asarray(given, weighted.dtype),
        weighted,
        jnp.asarray(ulfd_loss(student, teacher), weighted.dtype),
        clamp=clamp,
        xp=jnp,
        arange=lambda count: np.arange(count, dtype=np.int64),  # JAX's own may be 32 bits wide
    )
