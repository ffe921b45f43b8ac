"""Every likelihood, and a loss of two parts, as torch and JAX transform them, in float64."""

import jax
import numpy as np
import pytest
import torch

import ulfd_jax
import ulfd_torch
from tests.oracle import exact, make_case
from ulfd import FAMILY

SHAPE, SIGMA = (3, 4, 5), (3, 1, 5)
RTOL = 1e-4  # float32, of gradients of everyday size
MEMBERS = {"laplace": "laplace", "student_t": "student_t", "gaussian": "beta_nll"}
MEMBERS["two parts"] = "faithful"


def single(array):
    return np.asarray(array).astype(np.float32).astype(np.float64)


@pytest.fixture(params=MEMBERS)
def problem(request):
    """Options, inputs in float32, and the gradients of their sum."""
    options = {**FAMILY[MEMBERS[request.param]].options, "reduction": "sum"}
    case = make_case(SHAPE, SIGMA, single)
    inputs = [np.float32(x) for x in (case.student, case.teacher, case.log_variance)]
    return options, inputs, exact(case, **options)[1]


def close(found, expected):
    for ours, truth in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, truth, rtol=RTOL, atol=1e-5)


def test_torch(problem):
    options, arrays, expected = problem
    inputs = [torch.tensor(array) for array in arrays]
    assert ulfd_torch.ulfd_loss(*inputs, **options).isfinite()

    def loss(*given):
        return ulfd_torch.ulfd_loss(*given, **options)

    close(ulfd_torch.value_and_grad(*inputs, **options)[1], expected)
    each = torch.vmap(torch.func.grad(loss, argnums=(0, 1, 2)))
    close(each(*inputs), expected)
    torch._dynamo.reset()
    leaves = [tensor.requires_grad_() for tensor in inputs]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    close(torch.autograd.grad(compiled(*leaves), leaves), expected)
    again = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
    assert all(gradient.requires_grad for gradient in again)


def test_jax(problem):
    options, inputs, expected = problem

    def loss(*given):
        return ulfd_jax.ulfd_loss(*given, **options)

    gradients = jax.grad(loss, argnums=(0, 1, 2))
    close(jax.jit(gradients)(*inputs), expected)
    close(jax.jit(jax.vmap(gradients))(*inputs), expected)
    close(ulfd_jax.value_and_grad(*inputs, **options)[1], expected)
    assert np.isfinite(jax.jit(jax.hessian(loss, 2))(*inputs)).all()
