"""Every loss of the family × backend × dtype × σ shape × reduction against the float64 oracle."""

import math

import numpy as np
import pytest

from tests.conformance.backends import BACKENDS, Backend
from tests.oracle import (
    assert_close,
    exact,
    log_variance_shapes,
    magnitudes,
    make_case,
)
from ulfd import FAMILY
from ulfd.gradients import Gradients

CLAMP = (-2.0, 0.5)


def sigma_shapes(member: str, shape: tuple[int, ...]) -> list:
    """The σ shapes that a member of the family takes."""
    kind = FAMILY[member].log_variance
    if kind == "none":
        return [None]
    if kind == "channel":
        return [tuple(size if axis == 1 else 1 for axis, size in enumerate(shape))]
    return log_variance_shapes(shape)


def check(backend: Backend, result, case, upstream, options) -> None:
    """Asserts the value and every gradient within the derived bounds."""
    loss, gradients = result
    value, oracle = exact(case, upstream, **options)
    size, magnitude = magnitudes(case, upstream, **options)
    elements = case.student.size
    summed = 1 if options["reduction"] == "none" else elements
    assert str(loss.dtype) == backend.computed
    assert_close(loss, value, size, summed=summed, computed=backend.computed)
    for name in Gradients._fields:
        expected = getattr(oracle, name)
        if expected is None:
            assert getattr(gradients, name) is None
            continue
        assert_close(
            getattr(gradients, name),
            expected,
            getattr(magnitude, name),
            summed=elements // max(1, expected.size),
            computed=backend.computed,
            stored=backend.dtype,
        )


def upstreams(shape, reduction, rounded):
    """Upstream gradients other than 1, exact in float32: a number, or one for each element."""
    if reduction != "none":
        return [0.375]
    return [rounded(np.random.default_rng(1).normal(size=shape))]


SERVED = [
    pytest.param(backend, reduction, id=f"{backend.name}-{backend.dtype}-{reduction}")
    for backend in BACKENDS
    for reduction in backend.reductions
]


@pytest.mark.parametrize("clamp", [None, CLAMP], ids=["free", "clamped"])
@pytest.mark.parametrize("member", FAMILY)
@pytest.mark.parametrize(("backend", "reduction"), SERVED)
def test_agrees_with_the_oracle(backend, member, reduction, clamp):
    options = {**FAMILY[member].options, "reduction": reduction, "clamp": clamp}
    for shape in backend.shapes:
        for sigma in sigma_shapes(member, shape):
            case = make_case(shape, sigma, backend.rounded)
            for upstream in upstreams(shape, reduction, backend.rounded):
                result = backend.run(case, upstream, **options)
                check(backend, result, case, upstream, options)


BREAKS = {
    "zero": lambda gradient: gradient * 0,
    "sign": lambda gradient: -gradient,
    "scale": lambda gradient: gradient * 1.05,
    "upstream ignored": lambda gradient: gradient / 0.375,
}


@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("part", Gradients._fields)
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: f"{backend.name}-{backend.dtype}")
def test_the_bounds_catch_broken_gradients(backend, part, broken):
    options = {"reduction": "mean", "prior_weight": 2.0}
    shape = backend.shapes[0]
    for sigma in log_variance_shapes(shape):
        case = make_case(shape, sigma, backend.rounded)
        loss, gradients = backend.run(case, 0.375, **options)
        check(backend, (loss, gradients), case, 0.375, options)
        wrong = gradients._replace(**{part: BREAKS[broken](getattr(gradients, part))})
        with pytest.raises(AssertionError):
            check(backend, (loss, wrong), case, 0.375, options)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: f"{backend.name}-{backend.dtype}")
def test_the_bound_catches_a_broken_value(backend):
    options = {"reduction": "mean"}
    case = make_case(backend.shapes[0], backend.shapes[0], backend.rounded)
    loss, gradients = backend.run(case, 1.0, **options)
    assert math.isfinite(loss)
    with pytest.raises(AssertionError):
        check(backend, (loss * np.asarray(1.001, loss.dtype), gradients), case, 1.0, options)
