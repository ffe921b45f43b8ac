"""The float64 oracle with the tolerances that follow from the arithmetic, for every implementation.

The tolerance is a rounding analysis, not a choice. With ε the distance from 1 to the next number of
the arithmetic's dtype, an exponential exp(x) errs by at most (|x| + 2)·2ε relative (the hardware's
of a GPU; a library's is exacter), each other operation by ε/2. The standardised residual, whose
exponent is σ/2, then errs by (|σ| + 5.5)·ε, and what is quadratic in it by twice as much; β's
factor adds 2.5·β|σ| + 4.5. A sum in which a term passes h additions errs by h·ε of the sum of
magnitudes, and the store rounds once more, to the result's dtype. Below the smallest normal number
hardware may flush to zero.

The options are those of `ulfd.options.loss_options`, which refuses what it does not know; the terms
are those of the likelihood's own penalty and slope.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import numpy as xp

from ulfd import losses
from ulfd.gradients import HALF_SLOPES, Gradients, closed_form, sum_to
from ulfd.options import LossOptions, loss_options

ROUNDINGS = 20  # 11 of what is quadratic in the residual, 4.5 of β's factor, and what joins them
# torch and NumPy sum blocks of at most 128 elements one after the other, then pairwise.
SEQUENTIAL = 128
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
# Below its smallest normal number a dtype's rounding error is absolute.
TINY = {"float64": 0.0, "float32": 2.0**-149, "bfloat16": 2.0**-133, "float16": 2.0**-24}
NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126}

FEATURE_SHAPES = ((4, 6, 5, 3), (2, 7, 8), (5, 4), (3,), (1, 1, 1, 1))
REDUCTIONS = ("mean", "batchmean", "sum", "none")


def log_variance_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Every way in which σ can broadcast to `shape`: each axis kept or 1, and fewer axes."""
    shapes: list[tuple[int, ...]] = [()]
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
    given = loss_options(**options)
    loss = np.asarray(losses.ulfd_loss(*inputs, given, xp=xp))
    return loss, closed_form(*inputs, given, upstream=np.asarray(upstream))


def float64(result: Any) -> np.ndarray:
    """An array or a tensor in float64."""
    if hasattr(result, "detach"):
        result = result.detach().cpu().double()
    return np.asarray(result, np.float64)


@dataclass(frozen=True)
class _Terms:
    """Of each element, the absolute values that its results are sums of, and their errors in ε."""

    value: np.ndarray
    by_feature: np.ndarray
    by_sigma: np.ndarray
    roundings: np.ndarray
    flushed: np.ndarray  # what the smallest normal number, lost in one place, can change


def _terms(case: Case, options: LossOptions) -> _Terms:
    if options.gamma is None:
        return _terms_of_one(case, options)
    inputs = (case.student, case.teacher, case.log_variance)
    network, *others = losses.separated(*inputs, options, xp=xp)
    first = _terms_of_one(Case(*network[:3]), network.options)
    second = _terms_of_one(Case(*others[0][:3]), others[0].options) if others else None
    scale, extra = abs(options.weight), 0.0
    if network.log_variance is not None:
        # The weights are themselves computed: a few operations on γσ, an exponential, a mean.
        largest = np.abs(options.gamma * losses.clamped(case.log_variance, options.clamp, xp=xp))
        count = case.log_variance.size
        extra = 12 + 8 * np.max(largest) + min(count, SEQUENTIAL) + math.log2(count)
    if second is None:
        return replace(first, value=scale * first.value, by_feature=scale * first.by_feature)
    return _Terms(
        value=scale * first.value + second.value,
        by_feature=scale * first.by_feature,
        by_sigma=second.by_sigma,
        roundings=np.maximum(first.roundings + extra, second.roundings),
        flushed=scale * first.flushed + second.flushed,
    )


def _terms_of_one(case: Case, options: LossOptions) -> _Terms:
    penalty = losses.LIKELIHOODS[options.likelihood].penalty
    half_slope = HALF_SLOPES[options.likelihood]
    difference = np.abs(case.student - case.teacher)
    sigma, k, beta = np.zeros_like(difference), 0.0, 0.0
    if case.log_variance is not None:
        sigma = sigma + losses.clamped(case.log_variance, options.clamp, xp=xp)
        k, beta = abs(options.prior_weight), options.beta
    inverse, balance = np.exp(-0.5 * sigma), np.exp(beta * sigma)
    residual = difference * inverse
    half = np.abs(half_slope(residual, *options.parameters, xp=xp))
    return _Terms(
        value=balance * (np.abs(penalty(residual, *options.parameters, xp=xp)) + k * np.abs(sigma)),
        by_feature=2 * balance * inverse * half,
        by_sigma=balance * (k + residual * half),
        roundings=ROUNDINGS + (2 + 2.5 * beta) * np.abs(sigma),
        flushed=(1 + balance) * (1 + difference + inverse) * (1 + residual + np.abs(sigma) + k),
    )


def _reduced(
    case: Case, options: LossOptions, upstream: Any, value: Any, by_feature: Any, by_sigma: Any
) -> tuple[np.ndarray, Gradients]:
    """Sums of magnitudes, as the results are sums of terms."""
    weight = 1.0 if options.gamma is not None else abs(options.weight)  # is in the terms
    scale = weight / losses.denominator(case.student.shape, options.reduction)
    factor = scale * np.abs(np.asarray(upstream))
    loss = scale * (value if options.reduction == "none" else np.sum(value))
    feature = factor * by_feature
    sigma = None
    if case.log_variance is not None:
        sigma = sum_to(factor * by_sigma, case.log_variance.shape)
    return np.asarray(loss), Gradients(feature, feature, sigma)


def magnitudes(case: Case, upstream=1.0, **options) -> tuple[np.ndarray, Gradients]:
    """`exact` with every term replaced by its absolute value: what rounding errors scale with."""
    given = loss_options(**options)
    terms = _terms(case, given)
    return _reduced(case, given, upstream, terms.value, terms.by_feature, terms.by_sigma)


@dataclass(frozen=True)
class Expected:
    """Exact values and the largest permitted error of each, in float64."""

    values: tuple[np.ndarray | None, ...]  # loss, by student, by teacher, by σ
    bounds: tuple[np.ndarray | None, ...]

    def errors(self, results: tuple[Any, ...]) -> list[str]:
        """What exceeds its bound, in words; empty if nothing does. None is not looked at."""
        wrong = []
        names = ("loss", *Gradients._fields)
        for name, value, bound, result in zip(
            names, self.values, self.bounds, results, strict=True
        ):
            if value is None or bound is None or result is None:
                continue
            got = float64(result)
            if got.shape != value.shape:
                wrong.append(f"{name}: shape {got.shape} instead of {value.shape}")
                continue
            error = np.abs(got - value)
            if not np.all(error <= bound):  # also where it is NaN
                excess = np.nan_to_num(error - bound, nan=np.inf)
                place = np.unravel_index(np.argmax(excess), got.shape)
                wrong.append(
                    f"{name} at {place}: {got[place]!r} instead of {value[place]!r}, error "
                    f"{error[place]:.3g}, allowed {np.broadcast_to(bound, got.shape)[place]:.3g}"
                )
        return wrong


def expected(
    case: Case, upstream=1.0, *, computed="float32", stored=None, truncates=False, **options
) -> Expected:
    """The oracle's results with the bounds of an implementation.

    Args:
        computed: the dtype of the arithmetic and of the loss.
        stored: the dtypes of the gradients by student, teacher and σ; `computed` if None.
        truncates: whether a store cuts off what hardware rounds, a whole unit instead of a half.
        options: of `ulfd.options.loss_options`.
    """
    given = loss_options(**options)
    loss, gradients = exact(case, upstream, **options)
    terms, eps = _terms(case, given), EPS[computed]
    sums = case.student.size // max(1, getattr(case.log_variance, "size", 1))
    summed = (1 if given.reduction == "none" else case.student.size, 1, sums)
    parts = (terms.value, terms.by_feature, terms.by_sigma)
    errors = (
        1.01 * eps * part * (terms.roundings + min(count, SEQUENTIAL) + math.log2(max(count, 1)))
        + NORMAL[computed] * terms.flushed
        for part, count in zip(parts, summed, strict=True)
    )
    of_loss, of_gradients = _reduced(case, given, upstream, *errors)
    unit = 1.0 if truncates else 0.5
    bounds = [of_loss + eps / 2 * np.abs(loss) + NORMAL[computed]]
    for gradient, bound, dtype in zip(
        gradients, of_gradients, stored or (computed,) * 3, strict=True
    ):
        if gradient is None:
            bounds.append(None)
            continue
        smallest = max(TINY[dtype], NORMAL[computed])
        bounds.append(bound * (1 + EPS[dtype]) + unit * EPS[dtype] * np.abs(gradient) + smallest)
    return Expected((loss, *gradients), tuple(bounds))
