"""What is logged of the loss: PyTorch's numbers, under jit too, and no gradient."""

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import ulfd_jax
import ulfd_torch

SHAPE = (9, 16, 8, 8)
SIGMAS = [SHAPE, (9, 1, 8, 8), (9, 1, 1, 1), (16, 1, 1), ()]


def inputs(shape):
    rng = np.random.default_rng(0)
    return [rng.normal(size=size).astype(np.float32) for size in (SHAPE, SHAPE, shape)]


@pytest.mark.parametrize("clamp", [None, (-0.5, 0.8)])
@pytest.mark.parametrize("shape", SIGMAS)
def test_every_number_is_that_of_torch(shape, clamp):
    given = inputs(shape)
    expected = ulfd_torch.loss_statistics(*map(torch.from_numpy, given), clamp=clamp).as_dict()
    found = jax.jit(lambda *arrays: ulfd_jax.loss_statistics(*arrays, clamp=clamp))(*given)
    assert found.as_dict() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert ulfd_jax.loss_statistics(*given, clamp=clamp).as_dict() == pytest.approx(
        expected, rel=1e-5, abs=1e-6
    )
    for value in found:
        assert (value.shape, value.dtype) == ((), jnp.float32)


def test_no_gradient_comes_from_it():
    student, teacher, sigma = inputs((9, 1, 1, 1))
    gradient = jax.grad(lambda x: sum(ulfd_jax.loss_statistics(x, teacher, sigma)))(student)
    assert not gradient.any()


def test_without_log_variance_and_with_a_number():
    student, teacher, _ = inputs(())
    found = ulfd_jax.loss_statistics(student, teacher, 1.0).as_dict()
    assert found["effective_weight"] == pytest.approx(np.exp(-1), rel=1e-5)
    assert ulfd_jax.loss_statistics(student, teacher).as_dict()["effective_weight"] == 1


def test_a_weight_that_grows_with_the_error_is_said_once_read():
    student, teacher, _ = inputs(())
    sigma = -np.log((student - teacher) ** 2 + 1e-3)
    with pytest.warns(UserWarning, match="σ falls where the error grows"):
        ulfd_jax.loss_statistics(student, teacher, sigma).as_dict()
