"""Inputs in every shape, dtype and memory order, shared by every test of a kernel on tensors."""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tests import oracle
from tests.oracle import Expected
from ulfd import FAMILY
from ulfd.checks import dtype_name
from ulfd.kernels import registry
from ulfd.options import loss_options

KERNEL = os.environ.get("ULFD_TEST_KERNEL", "triton")
"""The kernel that `numerics` and `operators` test in this process: "triton" or "native"."""
# Hardware rounds to the nearest bfloat16; Triton's interpreter truncates, a whole unit.
TRUNCATES = os.environ.get("TRITON_INTERPRET") == "1"


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


def expected(
    student: torch.Tensor,
    teacher: torch.Tensor,
    log_variance: torch.Tensor | None,
    *,
    upstream: float = 1.0,
    **options: Any,
) -> Expected:
    """`oracle.expected` of tensors."""
    tensors = (student, teacher, log_variance)
    names = ("float32" if t is None else dtype_name(t.dtype) for t in tensors)
    case = oracle.Case(*map(exact, tensors))
    return oracle.expected(case, upstream, stored=tuple(names), truncates=TRUNCATES, **options)


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
IMPLEMENTED = [
    name
    for name, member in FAMILY.items()
    if loss_options(**member.options).likelihood in (registry.KERNELS[KERNEL].likelihoods or ())
]
"""The members of the family that the kernel has; it refuses the others (tests/conformance)."""
