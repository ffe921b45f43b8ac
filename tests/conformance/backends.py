"""Every way in which the library computes the loss: the conformance tests run over this table."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from unittest import mock

import jax
import ml_dtypes
import numpy as np
import torch

import ulfd
import ulfd_jax
import ulfd_torch
from tests.oracle import FEATURE_SHAPES, REDUCTIONS, Case
from ulfd.gradients import Gradients
from ulfd.kernels import registry
from ulfd_jax import functional

Result = tuple[np.ndarray, Gradients]
SCALARS = tuple(reduction for reduction in REDUCTIONS if reduction != "none")
SERVED = {"composite": REDUCTIONS, "native": SCALARS}
"""The kernels that run on any CPU, and the reductions that they serve."""


@dataclass(frozen=True)
class Backend:
    """One implementation in one dtype."""

    name: str
    dtype: str
    rounded: Callable[[np.ndarray], np.ndarray]  # float64 in, float64 out, exact in the dtype
    run: Callable[..., Result]  # (case, upstream, **options)
    reductions: tuple[str, ...] = REDUCTIONS
    shapes: tuple[tuple[int, ...], ...] = FEATURE_SHAPES  # of the features it is tried on

    @property
    def kernel(self) -> registry.Kernel:
        """What the registry knows of it."""
        return registry.KERNELS[self.name.split("-")[1]]

    @property
    def computed(self) -> str:
        """The dtype of the arithmetic and of the loss."""
        return "float64" if self.dtype == "float64" else "float32"


def _numpy(dtype: str, implementation: str) -> Backend:
    def run(case: Case, upstream, **options) -> Result:
        arrays = [
            None if array is None else np.asarray(array).astype(dtype)
            for array in (case.student, case.teacher, case.log_variance)
        ]
        options = {**options, "implementation": implementation}
        loss, gradients = ulfd.value_and_grad(*arrays, upstream=upstream, **options)
        assert np.array_equal(loss, ulfd.ulfd_loss(*arrays, **options))
        options["teacher_gradient"] = False
        _, spared = ulfd.value_and_grad(*arrays, upstream=upstream, **options)
        assert spared.teacher is None
        assert np.array_equal(spared.student, gradients.student)
        if gradients.log_variance is None:
            assert spared.log_variance is None
        else:
            assert np.array_equal(spared.log_variance, gradients.log_variance)
        for gradient, array in zip(gradients, arrays, strict=True):
            assert (gradient is None) == (array is None)
            assert gradient is None or gradient.dtype == array.dtype
        return loss, gradients

    def rounded(array: np.ndarray) -> np.ndarray:
        return np.asarray(array).astype(dtype).astype(np.float64)

    return Backend(f"numpy-{implementation}", dtype, rounded, run, SERVED[implementation])


def _torch(dtype: str, implementation: str) -> Backend:
    kind = getattr(torch, dtype)

    def run(case: Case, upstream, **options) -> Result:
        tensors = [
            None if array is None else torch.tensor(array).to(kind).requires_grad_()
            for array in (case.student, case.teacher, case.log_variance)
        ]
        loss = ulfd_torch.ulfd_loss(*tensors, implementation=implementation, **options)
        loss.backward(torch.as_tensor(upstream, dtype=loss.dtype).expand(loss.shape))
        gradients = []
        for tensor in tensors:
            if tensor is not None:
                assert tensor.grad.dtype == kind
            gradients.append(None if tensor is None else tensor.grad.double().numpy())
        return loss.detach().numpy(), Gradients(*gradients)

    def rounded(array: np.ndarray) -> np.ndarray:
        return torch.tensor(np.asarray(array)).to(kind).double().numpy()

    return Backend(f"torch-{implementation}", dtype, rounded, run, SERVED[implementation])


# XLA needs 0.15 s to compile a case as a whole, and there are thousands; single operations are
# compiled once and shared by the cases.
_BY_OPERATION = mock.patch.multiple(
    functional,
    _composite=functional._composite.__wrapped__,
    _kernel=functional._kernel.__wrapped__,
)


def _pulled(loss, upstream, *arrays):
    """The value, and the gradients under an upstream."""
    value, pull = jax.vjp(loss, *arrays)
    return value, pull(jax.numpy.broadcast_to(upstream, value.shape).astype(value.dtype))


# Every new shape costs a compilation; tests/ulfd_jax has the features (B, C, H, W), compiled whole.
JAX_SHAPES = ((2, 7, 8), (1, 1, 1, 1))


def _jax(dtype: str, implementation: str, whole: bool) -> Backend:
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype

    def run(case: Case, upstream, **options) -> Result:
        def loss(*arrays):
            return ulfd_jax.ulfd_loss(*arrays, implementation=implementation, **options)

        with jax.enable_x64(dtype == "float64"), nullcontext() if whole else _BY_OPERATION:
            arrays = [
                None if array is None else jax.numpy.asarray(array, kind)
                for array in (case.student, case.teacher, case.log_variance)
            ]
            take = jax.jit(_pulled, static_argnums=0) if whole else _pulled
            value, gradients = take(loss, upstream, *arrays)
        for gradient, array in zip(gradients, arrays, strict=True):
            assert array is None or gradient.dtype == array.dtype
        return np.asarray(value), Gradients(
            *(None if array is None else np.asarray(array, np.float64) for array in gradients)
        )

    def rounded(array: np.ndarray) -> np.ndarray:
        return np.asarray(array).astype(kind).astype(np.float64)

    if implementation == "composite":
        return Backend(f"jax-{implementation}", dtype, rounded, run, REDUCTIONS, JAX_SHAPES)
    # A kernel is compiled anew for every σ shape and option.
    return Backend(f"jax-{implementation}", dtype, rounded, run, ("mean",), JAX_SHAPES[:1])


DTYPES = ("float16", "bfloat16", "float32", "float64")


def backends(*, whole: bool = False) -> list[Backend]:
    """Every one. `whole` compiles JAX's as one program each, which is exact but slow."""
    return [
        *(_numpy(dtype, name) for name in SERVED for dtype in ("float16", "float32", "float64")),
        *(_torch(dtype, name) for name in SERVED for dtype in DTYPES),
        *(_jax(dtype, "composite", whole) for dtype in DTYPES),
        *(_jax(dtype, "native", whole) for dtype in ("bfloat16", "float32")),
    ]


BACKENDS = backends()
