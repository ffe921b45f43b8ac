"""The Triton path's numbers, with Triton's interpreter in the place of jax-triton and the GPU.

Not collected by itself: `test_interpreted.py` runs it in a process with TRITON_INTERPRET=1.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from jax import numpy as jnp

from tests.ulfd.kernels.cases import CASES, Case, expected, inputs
from ulfd.kernels import triton_configs
from ulfd.options import LossOptions, loss_options
from ulfd_jax import derivatives, triton

# Small tiles make small inputs cover several programs, the interior and the tail.
ONE = np.float32(1)
SMALL = triton_configs.Config(256, 1, triton_configs.Columns(256, 1, width=64, programs=6))
CONTIGUOUS = [case for case in CASES if case.order is None and case.offset == 0]
CONTIGUOUS = CONTIGUOUS[:12] + CONTIGUOUS[12::3]  # every shape of σ, and some dtypes and options


def _to_torch(array: Any) -> torch.Tensor:
    array = np.array(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def triton_call(
    *arrays: Any, kernel: Any, out_shape: Any, grid: Any, num_warps: int, compute_capability: int,
    **constants: Any,
) -> Any:  # fmt: skip
    """`jax_triton.triton_call` by the interpreter; memory that nobody writes is NaN."""
    assert compute_capability == 90

    def run(*given: Any) -> Any:
        memory = [_to_torch(np.full(out.shape, np.nan, out.dtype)) for out in out_shape]
        before = [_to_torch(array) for array in given]
        kernel[grid](*before, *memory, num_warps=num_warps, **constants)
        for tensor, array in zip(before, given, strict=True):
            np.testing.assert_array_equal(_to_numpy(tensor), array, "an input was changed")
        return [_to_numpy(tensor) for tensor in memory]

    return jax.pure_callback(run, out_shape, *arrays)


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_configs, "config", lambda *_: SMALL)
    monkeypatch.setattr(triton, "_jax_triton", lambda: SimpleNamespace(triton_call=triton_call))


def call_of(case: Case) -> tuple[derivatives.Call, float]:
    given = dict(case.options)
    weight = given.pop("weight", 1.0)
    return derivatives.Call(loss_options(**given), triton.implementation("sm_90"), ()), weight


def jax_inputs(case: Case) -> tuple[Any, list[Any]]:
    tensors = inputs(case)
    return tensors, [
        None if tensor is None else jnp.asarray(_to_numpy(tensor)) for tensor in tensors
    ]


def as_torch(arrays: Any) -> list[Any]:
    return [None if array is None else _to_torch(array) for array in arrays]


@pytest.mark.parametrize("case", CONTIGUOUS, ids=str)
def test_one_pass_matches_the_oracle(case: Case) -> None:
    tensors, arrays = jax_inputs(case)
    call, weight = call_of(case)
    needs = (True, True, arrays[2] is not None)
    given = (jnp.float32(0.37 * weight), *arrays)
    loss, *gradients = derivatives.value_and_gradients(call, needs, *given)
    for gradient, array in zip(gradients, arrays, strict=True):
        assert array is None or gradient.dtype == array.dtype
    reference = expected(*tensors, upstream=0.37, **case.options)
    assert not reference.errors(as_torch((loss * weight, *gradients)))


@pytest.mark.parametrize("case", CONTIGUOUS[:12:3], ids=str)
def test_autodiff_matches_the_oracle(case: Case) -> None:
    tensors, arrays = jax_inputs(case)
    call, weight = call_of(case)
    weight = jnp.float32(weight)
    argnums = (0, 1) if arrays[2] is None else (0, 1, 2)
    run = jax.jit(jax.value_and_grad(lambda *a: -2.5 * derivatives.loss(call, weight, *a), argnums))
    loss, gradients = run(*arrays)
    reference = expected(*tensors, upstream=-2.5, **case.options)
    found = as_torch((loss / -2.5, *gradients, *[None] * (3 - len(gradients))))
    assert not reference.errors(found)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2)])
def test_only_what_is_needed(needed: Any) -> None:
    case = Case((2, 6, 7, 7), (2, 1, 7, 7))
    tensors, arrays = jax_inputs(case)
    call, _ = call_of(case)
    gradients = jax.grad(partial(derivatives.loss, call, ONE), needed)(*arrays)
    found: list[Any] = [None] * 3
    for index, gradient in zip(needed, gradients, strict=True):
        found[index] = _to_torch(gradient)
    reference = expected(*tensors)
    values = [None if f is None else v for f, v in zip(found, reference.values[1:], strict=True)]
    partly = type(reference)((None, *values), reference.bounds)
    assert not partly.errors((None, *found))


def test_an_empty_batch_sums_to_nothing() -> None:
    options = LossOptions(reduction="sum")
    call = derivatives.Call(options, triton.implementation("sm_90"), ())
    arrays = [jnp.zeros((0, 3)), jnp.zeros((0, 3)), jnp.zeros((1, 3))]
    loss, gradients = jax.value_and_grad(partial(derivatives.loss, call, ONE), (0, 1, 2))(*arrays)
    assert loss == 0
    assert [gradient.shape for gradient in gradients] == [(0, 3), (0, 3), (1, 3)]
    assert not gradients[2].any()
