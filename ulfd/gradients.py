"""Closed-form gradients of `losses.ulfd_loss`: in NumPy's float64 the oracle of every test.

With e = exp(−σ/2), the standardised residual r = (ẑ − z)·e, half the slope s(r) = ρ′(r)/2 of the
likelihood's penalty (r itself for the Gaussian one), b = exp(β·σ) (a constant for the gradient) and
the factor g = λ · upstream / denominator,

    ∂L/∂ẑ = 2·g·b·s(r)·e      ∂L/∂z = −∂L/∂ẑ      ∂L/∂σ = g·b·(k − r·s(r)),

the last one zero where the clamp acts, and summed over the axes along which σ was broadcast. Under
options with a γ the features' are those of the network's loss, σ's that of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import numpy

from ulfd.broadcasting import reduced_axes
from ulfd.losses import VID_EPSILON, clamped, denominator, identity, separated
from ulfd.options import DEFAULT, LossOptions

Array = Any


def _student_t(r: Array, degrees: float, *, xp: Any) -> Array:
    """(ν + 1)·r/(ν + r²), both sides divided by m = max(|r|, 1): r² would overflow."""
    m = xp.clip(xp.abs(r), 1.0, None)
    return (degrees + 1) * (r / m) / (degrees / m + r * (r / m))


HALF_SLOPES: dict[str, Callable[..., Array]] = {
    "gaussian": lambda r, xp: r,
    "laplace": lambda r, xp: 0.5 * xp.sign(r),
    "student_t": _student_t,
}
"""s(r) = ρ′(r)/2 of each likelihood, called as its penalty is."""


class Gradients(NamedTuple):
    """The gradients of a loss, arrays or tensors as its inputs are, each in its input's shape.

    None for a σ that was absent, and for what was not asked for.
    """

    student: Any
    teacher: Any
    log_variance: Any


def sum_to(array: Array, shape: tuple[int, ...], *, xp: Any = numpy) -> Array:
    """Sums `array` over the axes along which an array of `shape` was broadcast to it."""
    axes = reduced_axes(array.shape, shape)
    summed = xp.sum(array, axis=axes, keepdims=True) if axes else array
    return xp.reshape(summed, tuple(shape))


def joined(parts: Sequence[Gradients]) -> Gradients:
    """Of the losses of `ulfd.losses.separated`: the first trains the features, the second σ."""
    return Gradients(*parts[0][:2], parts[1].log_variance if len(parts) > 1 else None)


def closed_form(
    student: Array,
    teacher: Array,
    log_variance: Array | None = None,
    options: LossOptions = DEFAULT,
    *,
    upstream: float | Array = 1.0,
    dtype: Any = np.float64,
    xp: Any = numpy,
    stop_gradient: Callable[[Array], Array] = identity,
) -> Gradients:
    """The gradients of `losses.ulfd_loss`, computed and returned in `dtype`.

    Args:
        upstream: the gradient of what follows with respect to the loss: a number, or an array of
            `dtype`, of the features' shape for reduction "none" and else of none.
        dtype: of the arithmetic and the results; float64 makes this the oracle.
        xp: the array namespace, NumPy's by default.
        stop_gradient: the framework's detach, where the result is to be differentiated again.
        others: as in `losses.ulfd_loss`.
    Returns:
        Gradients of the shapes of student, teacher and log_variance.
    """
    if options.gamma is not None:
        same = {"xp": xp, "stop_gradient": stop_gradient}
        parts = separated(student, teacher, log_variance, options, **same)
        return joined([closed_form(*p, upstream=upstream, dtype=dtype, **same) for p in parts])
    half_slope, parameters = HALF_SLOPES[options.likelihood], options.parameters
    difference = xp.astype(student, dtype) - xp.astype(teacher, dtype)
    factor = upstream * (options.weight / denominator(student.shape, options.reduction))
    if log_variance is None:
        gradient = 2 * factor * half_slope(difference, *parameters, xp=xp)
        return Gradients(gradient, -gradient, None)
    given = xp.astype(log_variance, dtype)
    sigma = clamped(given, options.clamp, xp=xp)
    if options.beta != 0.0:
        factor = factor * stop_gradient(xp.exp(options.beta * sigma))
    inverse = xp.exp(-0.5 * sigma)
    residual = difference * inverse
    half = half_slope(residual, *parameters, xp=xp)
    gradient = 2 * factor * half * inverse
    by_sigma = factor * (options.prior_weight - residual * half)
    if options.clamp is not None:
        acts = (given < options.clamp[0]) | (given > options.clamp[1])
        by_sigma = xp.where(acts, xp.zeros_like(by_sigma), by_sigma)
    return Gradients(gradient, -gradient, sum_to(by_sigma, log_variance.shape, xp=xp))


def vid_log_variance_derivative(raw: Array, *, epsilon: float = VID_EPSILON) -> Array:
    """dσ/da of `losses.vid_log_variance`: sigmoid(a) / (softplus(a) + ε), in float64."""
    a = raw.astype(np.float64)
    return np.exp(-np.logaddexp(0.0, -a)) / (np.logaddexp(0.0, a) + epsilon)
