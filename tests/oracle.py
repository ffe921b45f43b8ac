"""Tolerances that follow from the arithmetic, and the cases every implementation is tried on.

A float32 element of the loss or of a gradient is a sum of products of at most eight rounded
factors, so its error is bounded by `ROUNDINGS` · eps times the sum of the absolute values of its
terms (the "magnitude"); a sum over n elements adds log2(n) roundings when it is pairwise, and the
result is rounded once more to the dtype it is returned in. Nothing here is picked by hand.
"""

import math
from dataclasses import dataclass

import numpy as np
from array_api_compat import numpy as xp

from ulfd import losses
from ulfd.gradients import Gradients, closed_form, sum_to

# difference, square, exp (2), its product, prior, sum, weight, beta's exp (2) and product, scale
ROUNDINGS = 12
# torch and NumPy sum blocks of at most 128 elements one after the other, then pairwise.
SEQUENTIAL = 128
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
# Below its smallest normal number a dtype's rounding error is absolute.
TINY = {"float64": 0.0, "float32": 2.0**-149, "bfloat16": 2.0**-133, "float16": 2.0**-24}

FEATURE_SHAPES = ((4, 6, 5, 3), (2, 7, 8), (5, 4), (3,), (1, 1, 1, 1))
REDUCTIONS = ("mean", "batchmean", "sum", "none")


def log_variance_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Every way in which σ can broadcast to `shape`: each axis kept or 1, and fewer axes."""
    shapes = [()]
    for size in shape:
        shapes = [(*head, tail) for head in shapes for tail in {size, 1}]
    return sorted({*shapes, (), shape[1:], shape[-1:]})


@dataclass(frozen=True)
class Case:
    """Inputs in float64 that the dtype under test represents exactly."""

    student: np.ndarray
    teacher: np.ndarray
    log_variance: np.ndarray | None


def make_case(shape, log_variance_shape, rounded, seed=0) -> Case:
    """Random features (some of them tied) and log-variances, rounded by `rounded`."""
    generator = np.random.default_rng(seed)
    student = rounded(generator.normal(size=shape))
    teacher = rounded(generator.normal(size=shape))
    # Ties: the gradient there is exactly zero, which random numbers never show.
    teacher = np.where(generator.random(shape) < 0.1, student, teacher)
    log_variance = None
    if log_variance_shape is not None:
        log_variance = rounded(generator.normal(size=log_variance_shape) * 1.5 - 1)
    return Case(student, teacher, log_variance)


def exact(case: Case, upstream=1.0, **options) -> tuple[np.ndarray, Gradients]:
    """Value and gradients in float64."""
    inputs = (case.student, case.teacher, case.log_variance)
    loss = np.asarray(losses.ulfd_loss(*inputs, xp=xp, **options))
    return loss, closed_form(*inputs, upstream=upstream, **options)


def magnitudes(case: Case, upstream=1.0, **options) -> tuple[np.ndarray, Gradients]:
    """The same with every term replaced by its absolute value: what rounding errors scale with."""
    k, weight = options.get("prior_weight", 2.0), options.get("weight", 1.0)
    reduction, beta = options.get("reduction", "mean"), options.get("beta", 0.0)
    scale = abs(weight) / losses.denominator(case.student.shape, reduction)
    difference = np.abs(case.student - case.teacher)
    if case.log_variance is None:
        value, by_feature, by_sigma = difference**2, 2 * difference, None
    else:
        sigma = losses.clamped(case.log_variance, options.get("clamp"), xp=xp)
        precision, boost = np.exp(-sigma), np.exp(beta * sigma)
        # exp's argument is exact, but β·σ is rounded: its error grows with |βσ|.
        boost = boost * (1 + np.abs(beta * sigma))
        value = boost * (precision * difference**2 + np.abs(k * sigma))
        by_feature = boost * 2 * precision * difference
        by_sigma = boost * (abs(k) + precision * difference**2)
    factor = scale * np.abs(np.asarray(upstream))
    loss = scale * value if reduction == "none" else scale * value.sum()
    feature = factor * by_feature + np.zeros_like(difference)
    if by_sigma is not None:
        by_sigma = sum_to(factor * by_sigma + np.zeros_like(difference), case.log_variance.shape)
    return np.asarray(loss), Gradients(feature, feature, by_sigma)


def assert_close(actual, expected, magnitude, *, summed=1, computed="float32", stored=None):
    """|actual − expected| within the bound for `summed` terms, computed and stored in dtypes.

    Args:
        actual, expected, magnitude: arrays of one shape, in float64.
        summed: how many elements each value is a sum of.
        computed: the dtype of the arithmetic.
        stored: the dtype of the result; the same if None.
    """
    stored = stored or computed
    roundings = ROUNDINGS + min(summed, SEQUENTIAL) + math.log2(max(summed, 1))
    allowed = roundings * EPS[computed] * magnitude + EPS[stored] / 2 * np.abs(expected)
    allowed = allowed * 1.01 + TINY[stored] + TINY[computed]
    actual = np.asarray(actual, np.float64)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    error = np.abs(actual - expected)
    worst = np.unravel_index(np.argmax(error - allowed), error.shape) if error.size else ()
    assert error.size == 0 or (error <= allowed).all(), (
        f"at {worst}: {actual[worst]!r} instead of {expected[worst]!r}, "
        f"error {error[worst]:.3g}, allowed {allowed[worst]:.3g}"
    )
