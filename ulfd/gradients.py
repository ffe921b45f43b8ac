"""Closed-form gradients of `losses.ulfd_loss` in NumPy: the oracle of every test.

With d = ẑ − z, w = exp(−σ), b = exp(β·σ) (a constant for the gradient) and the factor g = λ ·
upstream / denominator,

    ∂L/∂ẑ = 2·g·b·w·d      ∂L/∂z = −2·g·b·w·d      ∂L/∂σ = g·b·(k − w·d²),

the last one zero where the clamp acts, and summed over the axes along which σ was broadcast.
"""

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import numpy as xp

from ulfd.broadcasting import reduced_axes
from ulfd.losses import VID_EPSILON, clamped, denominator

Array = np.ndarray[Any, Any]


class Gradients(NamedTuple):
    """The gradients of a loss, arrays or tensors as its inputs are, each in its input's shape.

    None for a σ that was absent, and for what was not asked for.
    """

    student: Any
    teacher: Any
    log_variance: Any


def sum_to(array: Array, shape: tuple[int, ...]) -> Array:
    """Sums `array` over the axes along which an array of `shape` was broadcast to it."""
    axes = reduced_axes(array.shape, shape)
    return np.asarray(array.sum(axis=axes, keepdims=True)).reshape(shape)


def closed_form(
    student: Array,
    teacher: Array,
    log_variance: Array | None = None,
    *,
    prior_weight: float = 2.0,
    weight: float = 1.0,
    reduction: str = "mean",
    beta: float = 0.0,
    clamp: tuple[float, float] | None = None,
    upstream: float | Array = 1.0,
    dtype: Any = np.float64,
) -> Gradients:
    """The gradients of `losses.ulfd_loss`, computed and returned in `dtype`.

    Args:
        upstream: the gradient of what follows with respect to the loss: a number, or an array of
            the features' shape for reduction="none".
        dtype: of the arithmetic and the results; float64 makes this the oracle.
        others: as in `losses.ulfd_loss`.
    Returns:
        Gradients of the shapes of student, teacher and log_variance.
    """
    difference = student.astype(dtype) - teacher.astype(dtype)
    factor = np.asarray(upstream, dtype) * dtype(weight / denominator(student.shape, reduction))
    if log_variance is None:
        gradient = 2 * factor * difference
        return Gradients(gradient, -gradient, None)
    given = log_variance.astype(dtype)
    sigma = clamped(given, clamp, xp=xp)
    factor = factor * np.exp(beta * sigma)
    precision = np.exp(-sigma)
    gradient = 2 * factor * precision * difference
    by_sigma = factor * (prior_weight - precision * difference * difference)
    if clamp is not None:
        by_sigma = np.where((given < clamp[0]) | (given > clamp[1]), dtype(0), by_sigma)
    return Gradients(gradient, -gradient, sum_to(by_sigma, log_variance.shape))


def vid_log_variance_derivative(raw: Array, *, epsilon: float = VID_EPSILON) -> Array:
    """dσ/da of `losses.vid_log_variance`: sigmoid(a) / (softplus(a) + ε), in float64."""
    a = raw.astype(np.float64)
    return np.exp(-np.logaddexp(0.0, -a)) / (np.logaddexp(0.0, a) + epsilon)
