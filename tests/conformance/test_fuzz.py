"""Any options, σ (absent too), memory, dtypes and defaults at once, against the float64 oracle."""

from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ulfd
import ulfd_jax
import ulfd_torch
from tests.oracle import Case, expected
from ulfd.losses import LIKELIHOODS

DTYPES = ("float16", "float32", "float64")
FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Problem(NamedTuple):
    """What the loss is asked for. Numbers are exact in every dtype here."""

    arrays: list[Any]  # student, teacher and σ: float64 arrays in any memory order, or None
    number: bool  # whether σ is given as a Python number
    dtypes: tuple[str, ...]
    options: dict[str, Any]
    upstream: float
    implementation: str | None
    default_dtype: torch.dtype
    default_device: str | None

    @property
    def computed(self) -> str:
        """The dtype of the arithmetic."""
        used = self.dtypes if self.arrays[2] is not None and not self.number else self.dtypes[:2]
        return "float64" if "float64" in used else "float32"

    def wrong(self, loss: Any, gradients: Any) -> list[str]:
        """What is out of the bounds."""
        stored = [self.computed if self.number and i == 2 else d for i, d in enumerate(self.dtypes)]
        reference = expected(
            Case(*self.arrays), self.upstream, computed=self.computed, stored=stored, **self.options
        )
        return reference.errors((loss, *gradients))


@st.composite
def problems(draw: st.DrawFn, kinds: tuple[str, ...] = DTYPES, most: int = 5) -> Problem:
    shape = tuple(draw(st.lists(st.integers(1, most), min_size=1, max_size=4)))
    dtypes = tuple(draw(st.sampled_from(kinds)) for _ in range(3))
    half = "float16" in dtypes  # whose gradients, of a sum say, must not leave its range
    wide = not half and draw(st.booleans())
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))

    def numbers(size: tuple[int, ...], limit: float) -> Any:
        """Eight bits each, as bfloat16 has, laid out anyhow: permuted, or with gaps."""
        grid = 4 if limit > 16 else 16
        order = draw(st.permutations(range(len(size))))
        step = draw(st.sampled_from((1, 1, 2)))
        memory = [size[axis] for axis in order]
        if memory:
            memory[-1] *= step
        values = np.asarray(np.round(generator.uniform(-limit, limit, memory) * grid) / grid)
        if memory:
            values = values[..., ::step]
        return values.transpose(np.argsort(order)) if memory else values

    kind = draw(st.sampled_from(("none", "number", "shape", "shape", "shape")))
    sigma = None
    if kind != "none":
        kept = tuple(draw(st.sampled_from((1, size))) for size in shape)
        kept = () if kind == "number" else kept[draw(st.integers(0, len(shape))) :]
        sigma = numbers(kept, 60.0 if wide else 1.0 if half else 3.0)
    limit = 1.5 if half else 8.0
    low = draw(st.sampled_from((-2.0, 0.5)))
    likelihood = draw(st.sampled_from(sorted(LIKELIHOODS)))
    parameters = (4.0,) * len(LIKELIHOODS[likelihood].parameters)
    options = {
        "prior_weight": draw(st.sampled_from((2.0, 1.0, 0.0))),
        "weight": draw(st.sampled_from((1.0, 0.1))),
        "reduction": draw(st.sampled_from(("mean", "batchmean", "sum", "none"))),
        "beta": draw(st.sampled_from((0.0, 0.5))),
        "clamp": draw(st.sampled_from((None, (low, 5.0)))),
        "likelihood": (likelihood, *parameters),
    }
    if options["beta"] == 0:
        options["gamma"] = draw(st.sampled_from((None, None, 0.0, 0.5, -0.5)))
    served = likelihood == "gaussian" and options["reduction"] != "none"
    return Problem(
        [numbers(shape, limit), numbers(shape, limit), sigma],
        kind == "number",
        dtypes,
        options,
        draw(st.sampled_from((1.0, 0.375, -2.0))),
        draw(st.sampled_from((None, "composite", "native" if served else None))),
        draw(st.sampled_from((torch.float32, torch.bfloat16, torch.float64))),
        draw(st.sampled_from((None, "meta"))),
    )


@settings(FUZZ, max_examples=700)
@given(problem=problems())
def test_numpy(problem: Problem) -> None:
    inputs: list[Any] = [
        array if array is None else array.astype(dtype, order="K")
        for array, dtype in zip(problem.arrays, problem.dtypes, strict=True)
    ]
    if problem.number:
        inputs[2] = float(problem.arrays[2])
    upstream: Any = problem.upstream
    if problem.options["reduction"] == "none":
        upstream = np.full(problem.arrays[0].shape, upstream)
    named = {**problem.options, "implementation": problem.implementation}
    assert not problem.wrong(*ulfd.value_and_grad(*inputs, upstream=upstream, **named))
    assert not problem.wrong(ulfd.ulfd_loss(*inputs, **named), (None,) * 3)


@settings(FUZZ, max_examples=500)
@given(problem=problems((*DTYPES, "bfloat16")))
def test_torch(problem: Problem) -> None:
    inputs: list[Any] = []
    for array, dtype in zip(problem.arrays, problem.dtypes, strict=True):
        tensor = None if array is None else torch.from_numpy(array).to(getattr(torch, dtype))
        inputs.append(tensor)
    if problem.number:
        inputs[2] = float(problem.arrays[2])
    leaves = [x.requires_grad_() if isinstance(x, torch.Tensor) else x for x in inputs]
    named = {**problem.options, "implementation": problem.implementation}
    torch.set_default_dtype(problem.default_dtype)
    torch.set_default_device(problem.default_device)
    try:
        loss = ulfd_torch.ulfd_loss(*leaves, **named)
        loss.backward(loss.new_full(loss.shape, problem.upstream))
        upstream = problem.upstream
        if problem.options["reduction"] == "none":
            upstream = loss.new_full(loss.shape, upstream)
        fused = ulfd_torch.value_and_grad(*inputs, upstream=upstream, **named)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert str(loss.dtype) == f"torch.{problem.computed}"
    taken = [x.grad if isinstance(x, torch.Tensor) else None for x in leaves]
    assert not problem.wrong(loss, taken)
    assert not problem.wrong(*fused)


@settings(FUZZ, max_examples=25)  # each is a program of its own
@given(problem=problems(("float16", "float32", "bfloat16"), most=3))
def test_jax(problem: Problem) -> None:
    kinds = [ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype for dtype in problem.dtypes]
    inputs: list[Any] = [
        array if array is None else jax.numpy.asarray(array, dtype)
        for array, dtype in zip(problem.arrays, kinds, strict=True)
    ]
    if problem.number:
        inputs[2] = float(problem.arrays[2])
    upstream: Any = problem.upstream
    if problem.options["reduction"] == "none":
        upstream = np.full(problem.arrays[0].shape, upstream, np.float32)
    named = {**problem.options, "implementation": problem.implementation}
    assert not problem.wrong(*ulfd_jax.value_and_grad(*inputs, upstream=upstream, **named))
