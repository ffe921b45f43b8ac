"""The fused kernels in JAX on a real GPU, by way of jax-triton, against the float64 oracle."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")

if jax.default_backend() != "gpu":
    pytest.skip(f"no GPU: JAX computes on {jax.default_backend()}", allow_module_level=True)
pytest.importorskip("jax_triton", reason="jax-triton is needed: pip install 'ulfd[jax-gpu]'")

from tests.oracle import expected, make_case  # noqa: E402
from tests.ulfd_jax.cases import arrays  # noqa: E402
from ulfd_jax import ulfd_loss  # noqa: E402

pytestmark = pytest.mark.gpu
SHAPE, UPSTREAM = (16, 64, 7, 7), 0.37
SIGMAS = (SHAPE, (16, 1, 7, 7), (16, 1, 1, 1), (1, 64, 1, 1))


@pytest.mark.parametrize("sigma", SIGMAS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_against_the_oracle(sigma, dtype):
    case = make_case(SHAPE, sigma, lambda x: np.asarray(jax.numpy.asarray(x, dtype), np.float64))

    def loss(*inputs):
        return UPSTREAM * ulfd_loss(*inputs, implementation="triton")

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    value, gradients = run(*arrays(case, dtype))
    reference = expected(case, UPSTREAM, stored=(dtype,) * 3)
    value = np.float64(value) / UPSTREAM
    assert not reference.errors((value, *gradients))
    for first, second in zip(gradients, run(*arrays(case, dtype))[1], strict=True):
        np.testing.assert_array_equal(np.float32(first), np.float32(second))  # to the bit
