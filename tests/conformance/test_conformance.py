"""Every loss of the family × backend × dtype × σ shape × reduction against the float64 oracle."""

import math
from itertools import product

import numpy as np
import pytest

from tests.conformance.backends import BACKENDS, Backend
from tests.oracle import Case, expected, log_variance_shapes, make_case
from ulfd import FAMILY
from ulfd.gradients import Gradients
from ulfd.options import loss_options

CLAMP = (-2.0, 0.5)


def sigma_shapes(member: str, shape: tuple[int, ...]) -> list:
    """The σ shapes that a member of the family takes."""
    kind = FAMILY[member].log_variance
    if kind == "none":
        return [None]
    if kind == "channel":
        return [tuple(size if axis == 1 else 1 for axis, size in enumerate(shape))]
    return log_variance_shapes(shape)


def errors(backend: Backend, result, case, upstream, options) -> list[str]:
    """What is outside the derived bounds, of the value and every gradient."""
    loss, gradients = result
    reference = expected(
        case, upstream, computed=backend.computed, stored=(backend.dtype,) * 3, **options
    )
    assert str(loss.dtype) == backend.computed
    for gradient, truth in zip(gradients, reference.values[1:], strict=True):
        assert (gradient is None) == (truth is None)
    return reference.errors((loss, *gradients))


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
    likelihood = loss_options(**options).likelihood
    if likelihood not in (backend.kernel.likelihoods or (likelihood,)):
        case = make_case((2, 3), (2, 3), backend.rounded)
        with pytest.raises(ValueError, match=f"{backend.kernel.name}: has no '{likelihood}'"):
            backend.run(case, 1.0, **options)
        return
    for shape in backend.shapes:
        for sigma in sigma_shapes(member, shape):
            case = make_case(shape, sigma, backend.rounded)
            for upstream in upstreams(shape, reduction, backend.rounded):
                result = backend.run(case, upstream, **options)
                assert not errors(backend, result, case, upstream, options)


EVERY = pytest.mark.parametrize(
    "backend", BACKENDS, ids=lambda backend: f"{backend.name}-{backend.dtype}"
)


@EVERY
def test_without_log_variance_there_is_nothing_to_limit(backend):
    """A clamp that excludes 0, a prior and β leave the mean squared error what it is."""
    case = make_case(backend.shapes[0], None, backend.rounded)
    options = {"clamp": (0.5, 5.0), "prior_weight": 3.0, "beta": 0.5, "reduction": "mean"}
    result = backend.run(case, 0.375, **options)
    assert not errors(backend, result, case, 0.375, {"reduction": "mean"})


@EVERY
@pytest.mark.parametrize("sigma", [-170.0, -100.0, 100.0])
def test_zero_times_infinity_does_not_occur(backend, sigma):
    """Where ẑ = z the loss is k·σ, although exp(−σ) has left float32."""
    shape = backend.shapes[0]
    same = make_case(shape, shape, backend.rounded).student
    case = Case(same, same, np.full(shape, sigma))
    loss, gradients = backend.run(case, 1.0, reduction="sum")
    assert loss == 2 * sigma * same.size
    assert not gradients.student.any()
    assert not gradients.teacher.any()
    assert (gradients.log_variance == 2).all()


BREAKS = {
    "zero": lambda gradient: gradient * 0,
    "sign": lambda gradient: -gradient,
    "scale": lambda gradient: gradient * 1.05,
    "upstream ignored": lambda gradient: gradient / 0.375,
}


@EVERY
def test_the_bounds_catch_broken_gradients(backend):
    options = {"reduction": "mean", "prior_weight": 2.0}
    shape = backend.shapes[0]
    for sigma in log_variance_shapes(shape):
        case = make_case(shape, sigma, backend.rounded)
        loss, gradients = backend.run(case, 0.375, **options)
        assert not errors(backend, (loss, gradients), case, 0.375, options)
        for part, (name, broken) in product(Gradients._fields, BREAKS.items()):
            wrong = gradients._replace(**{part: broken(getattr(gradients, part))})
            assert errors(backend, (loss, wrong), case, 0.375, options), (part, name)


@EVERY
def test_the_bound_catches_a_broken_value(backend):
    options = {"reduction": "mean"}
    case = make_case(backend.shapes[0], backend.shapes[0], backend.rounded)
    loss, gradients = backend.run(case, 1.0, **options)
    assert math.isfinite(loss)
    wrong = loss * np.asarray(1.001, loss.dtype)
    assert errors(backend, (wrong, gradients), case, 1.0, options)
