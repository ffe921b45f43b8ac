"""What the tests of the loss in JAX share: inputs, and the check against the oracle."""

import numpy as np
from jax import numpy as jnp

from tests.oracle import Case, expected

SHAPE = (3, 4, 5, 5)


def arrays(case: Case, dtype="float32"):
    inputs = (case.student, case.teacher, case.log_variance)
    return [None if array is None else jnp.asarray(array, dtype) for array in inputs]


def single(array):
    return np.asarray(array).astype(np.float32).astype(np.float64)


def check(loss, gradients, case, upstream, **options):
    """The value and the gradients that were taken, against the float64 oracle."""
    assert not expected(case, upstream, **options).errors((loss, *gradients))
