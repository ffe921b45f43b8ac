"""What the tests of the loss in JAX share: inputs, and the check against the oracle."""

import numpy as np
from jax import numpy as jnp

from tests.oracle import Case, assert_close, exact, magnitudes
from ulfd.gradients import Gradients

SHAPE = (3, 4, 5, 5)


def arrays(case: Case, dtype="float32"):
    inputs = (case.student, case.teacher, case.log_variance)
    return [None if array is None else jnp.asarray(array, dtype) for array in inputs]


def single(array):
    return np.asarray(array).astype(np.float32).astype(np.float64)


def check(loss, gradients, case, upstream, **options):
    """The value and the gradients that were taken, against the float64 oracle."""
    value, oracle = exact(case, upstream, **options)
    size, magnitude = magnitudes(case, upstream, **options)
    assert_close(loss, value, size, summed=case.student.size)
    for name, gradient in zip(Gradients._fields, gradients, strict=True):
        if gradient is not None:
            expected = getattr(oracle, name)
            summed = case.student.size // expected.size
            assert_close(gradient, expected, getattr(magnitude, name), summed=summed)
