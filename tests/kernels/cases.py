"""Inputs, the float64 oracle and derived tolerances, shared by every test of a kernel.

The tolerance is a rounding analysis, not a choice. With u = 2⁻²⁴, an exponential errs by at most
e(x) = (|x| + 2)·2⁻²² relative (`triton_fused`), each multiplication and addition by u, a sum in
which a term passes h additions by h·u of the sum of magnitudes, and the final store by half a unit
in the last place of its dtype. Below the smallest normal float32 the hardware may flush to zero.
The native kernel stays inside the same bounds: its exponential is exacter, its sums are shorter.
"""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from array_api_compat import numpy as xp

from ulfd import losses
from ulfd.gradients import closed_form, sum_to

KERNEL = os.environ.get("ULFD_TEST_KERNEL", "triton")
"""The kernel that `numerics` and `operators` test in this process: "triton" or "native"."""
U = 2.0**-24
ADDITIONS = 64  # a thread's ≤ 16 + ≤ 8 tiles, trees of ≤ 10 + 13, and two loops of a few rounds
STEPS = 12  # roundings of one element: inputs are exact, each formula has fewer than 12 operations
TINY = 2.0**-126
# Hardware rounds to the nearest bfloat16; Triton's interpreter truncates, a whole unit.
TRUNCATES = os.environ.get("TRITON_INTERPRET") == "1"
HALF_UNIT = {
    torch.float32: U,
    torch.bfloat16: 2.0**-7 if TRUNCATES else 2.0**-8,
    torch.float16: 2.0**-11,
}
SMALLEST = {torch.float32: TINY, torch.bfloat16: TINY, torch.float16: 2.0**-24}


@dataclass(frozen=True)
class Case:
    """One problem: shapes, memory orders (outermost axis first), dtypes and options."""

    shape: tuple[int, ...]
    sigma: tuple[int, ...] | None
    order: tuple[int, ...] | None = None  # of student and teacher; None is contiguous
    dtypes: tuple[torch.dtype, torch.dtype, torch.dtype] = (torch.float32,) * 3
    options: dict[str, Any] = field(default_factory=dict)
    offset: int = 0  # elements by which the memory misses a 16-byte border

    def __str__(self) -> str:
        names = "/".join(str(dtype)[6:] for dtype in dict.fromkeys(self.dtypes))
        shapes = "x".join(map(str, self.shape)), "-" if self.sigma is None else str(self.sigma)
        order = "" if self.order is None else f" order {self.order}"
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{shapes[0]} σ {shapes[1]} {names}{order} {options} +{self.offset}".strip()


def _placed(array: np.ndarray, dtype: torch.dtype, case: Case, device: str) -> torch.Tensor:
    """The array as a tensor of the case's memory order, `offset` elements into its memory."""
    order = case.order if case.order and len(case.order) == array.ndim else range(array.ndim)
    base = torch.empty(array.size + case.offset, dtype=dtype, device=device)
    strides, stride = [0] * array.ndim, 1
    for axis in reversed(list(order)):
        strides[axis] = stride
        stride *= array.shape[axis]
    tensor = base.as_strided(array.shape, strides, case.offset)
    return tensor.copy_(torch.as_tensor(array))


def inputs(
    case: Case, device: str = "cpu", seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Student, teacher and σ: random numbers of everyday size."""
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(2, *case.shape))
    given = None if case.sigma is None else rng.normal(scale=1.5, size=case.sigma)
    return (
        _placed(student, case.dtypes[0], case, device),
        _placed(teacher, case.dtypes[1], case, device),
        None if given is None else _placed(given, case.dtypes[2], case, device),
    )


def exact(tensor: torch.Tensor | None) -> np.ndarray | None:
    """The tensor's values, which every dtype here has exactly in float64."""
    return None if tensor is None else tensor.detach().cpu().double().numpy()


@dataclass(frozen=True)
class Expected:
    """Exact values and the largest permitted error of each, in float64."""

    values: tuple[np.ndarray | None, ...]  # loss, by student, by teacher, by σ
    bounds: tuple[np.ndarray | None, ...]

    def errors(self, results: tuple[Any, ...]) -> list[str]:
        """What exceeds its bound, in words; empty if nothing does."""
        wrong = []
        names = ("loss", "student", "teacher", "log_variance")
        for name, value, bound, result in zip(
            names, self.values, self.bounds, results, strict=True
        ):
            if value is None or bound is None:
                continue
            got = exact(result)
            assert got is not None
            assert got.shape == value.shape, (name, got.shape, value.shape)
            excess = np.abs(got - value) - bound
            if not np.all(excess <= 0):  # also where it is NaN
                wrong.append(f"{name}: {np.max(np.abs(got - value))} with bound {np.min(bound)}")
        return wrong


def expected(
    student: torch.Tensor,
    teacher: torch.Tensor,
    log_variance: torch.Tensor | None,
    *,
    upstream: float = 1.0,
    **options: Any,
) -> Expected:
    """The float64 oracle's loss and gradients with their error bounds."""
    arrays = (exact(student), exact(teacher), exact(log_variance))
    loss = np.asarray(losses.ulfd_loss(*arrays, xp=xp, **options))
    gradients = closed_form(*arrays, upstream=upstream, **options)
    scale = abs(options.get("weight", 1.0)) / losses.denominator(
        tuple(student.shape), options.get("reduction", "mean")
    )
    squared = np.square(arrays[0] - arrays[1])
    beta, prior = options.get("beta", 0.0), options.get("prior_weight", 2.0)
    if arrays[2] is None:
        sigma, beta, prior, slack = np.zeros_like(squared), 0.0, 0.0, STEPS * U
    else:
        sigma = losses.clamped(arrays[2], options.get("clamp"), xp=xp)
        slack = (np.abs(sigma) + 2 + beta * np.abs(sigma) + 2) * 2.0**-22 + STEPS * U
    balance, precision = np.exp(beta * sigma), np.exp(-sigma)
    # What a flush to zero of exp(−σ) or exp(βσ) can change.
    flush = TINY * (balance + 1) * (1 + squared + np.abs(sigma) + prior)
    parts = balance * (precision * squared + prior * np.abs(sigma))
    bounds = [np.asarray(scale * (np.sum(parts * (slack + ADDITIONS * U)) + np.sum(flush)) + TINY)]
    factor = scale * abs(upstream)
    for gradient, tensor in zip(gradients[:2], (student, teacher), strict=True):
        rounding = np.abs(gradient) * (slack + HALF_UNIT[tensor.dtype])
        bounds.append(rounding + SMALLEST[tensor.dtype] + factor * flush)
    if log_variance is not None:
        parts = factor * balance * (prior + precision * squared)
        spread = sum_to(parts * (slack + ADDITIONS * U) + factor * flush, arrays[2].shape)
        rounding = np.abs(gradients[2]) * HALF_UNIT[log_variance.dtype]
        bounds.append(spread + rounding + SMALLEST[log_variance.dtype])
    else:
        bounds.append(None)
    return Expected((loss, *gradients), tuple(bounds))


FULL, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16
NHWC = (0, 2, 3, 1)
BETA_NLL = {"prior_weight": 1.0, "weight": 0.5, "beta": 0.5}
SHAPES = [
    ((2, 6, 7, 7), (2, 6, 7, 7)),
    ((2, 6, 7, 7), (2, 1, 7, 7)),
    ((2, 6, 7, 7), (2, 1, 1, 1)),
    ((2, 6, 7, 7), (1, 6, 1, 1)),
    ((2, 6, 7, 7), ()),
    ((2, 6, 7, 7), None),
    ((3, 5, 7, 7), (1, 1, 7, 7)),
    ((3, 5, 7, 7), (3, 5, 1, 1)),
    ((3, 5, 7, 7), (5, 1, 7)),  # four runs: σ is expanded
    ((3, 64, 2, 2), (3, 1, 2, 2)),
    ((5, 7, 12), (5, 7, 1)),  # tokens
    ((5, 7, 12), (12,)),
]
DTYPES = [
    (FULL, FULL, FULL),
    (BRAIN, BRAIN, BRAIN),
    (HALF, HALF, HALF),
    (BRAIN, FULL, FULL),
    (HALF, BRAIN, FULL),
]
CASES = [
    *(Case(shape, sigma) for shape, sigma in SHAPES),
    *(Case(shape, sigma, NHWC) for shape, sigma in SHAPES if len(shape) == 4),
    Case((2, 6, 3, 7), (2, 1, 3, 7), (3, 1, 0, 2)),
    *(Case((2, 6, 7, 7), s, None, d) for _, s in SHAPES[:6] for d in DTYPES[1:]),
    *(Case((2, 6, 7, 7), s, NHWC, DTYPES[1]) for _, s in SHAPES[:4]),
    *(Case((size,), (size,)) for size in (1, 2, 7, 31, 1001)),
    *(Case((2, 6, 7, 7), s, offset=1) for _, s in SHAPES[:4]),
    Case((2, 6, 7, 7), (2, 6, 7, 7), None, DTYPES[1], offset=3),
    *(
        Case((2, 6, 7, 7), s, None, (FULL,) * 3, options)
        for _, s in SHAPES[:6]
        for options in (
            BETA_NLL,
            {"clamp": (-0.5, 0.75), "reduction": "sum"},
            {"weight": 0.1, "reduction": "batchmean"},
        )
    ),
    Case((), ()),
    Case((4, 3), (4, 3), None, DTYPES[2], {"weight": 1e-3}),
]
