"""The native CPU kernel from Python: its shared library, the loop over memory, the call.

The library has a plain C interface (`problem.hpp`) and is called through ctypes, which releases
the GIL: one binary serves every Python version, NumPy, torch and, by its entry `ulfd_xla`, JAX.
It is absent where there was no compiler when ulfd was installed; the composite form then serves.
"""

import ctypes
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from math import inf, prod
from pathlib import Path
from typing import NamedTuple

from ulfd.broadcasting import plan
from ulfd.losses import denominator
from ulfd.options import LossOptions

NAME = "libulfd_cpu.so"
DTYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}
FULL, ROWS, COLUMNS = 0, 1, 2
INSTALL = (
    "install ulfd anew where g++ or clang++ is: "
    "pip install --force-reinstall --no-deps --no-binary ulfd ulfd"
)

PROBLEM = struct.Struct("@8P3q5d6i")
"""`ulfd::Problem` of problem.hpp: pointers, sizes, numbers and codes in its order.

As bytes it costs a third of what a `ctypes.Structure` does, which a call on small features feels.
"""


class Loop(NamedTuple):
    """How the kernel walks over the features; see `Form` in problem.hpp."""

    form: int
    outer: int
    middle: int
    inner: int


def _load() -> ctypes.CDLL | None:
    """The library beside this file (a wheel), or where an editable installation keeps it."""
    places = [Path(__file__).with_name(NAME)]
    with suppress(metadata.PackageNotFoundError):
        installed = metadata.distribution("ulfd").locate_file(f"ulfd/kernels/cpu/{NAME}")
        places.append(Path(str(installed)))
    for place in places:
        if place.is_file():
            library = ctypes.CDLL(str(place))
            library.ulfd_instructions.restype = ctypes.c_char_p
            library.ulfd_fused.argtypes = [ctypes.c_char_p]
            return library
    return None


LIBRARY = _load()
MISSING = None if LIBRARY else f"its C++ library is not installed; {INSTALL}"
XLA_MISSING = MISSING or (
    None if hasattr(LIBRARY, "ulfd_xla") else f"it was built where jaxlib was not; {INSTALL}"
)


def instruction_sets() -> dict[str, int]:
    """The instruction sets that this processor and the library have, best first, by number."""
    names = {} if LIBRARY is None else {LIBRARY.ulfd_instructions(i): i for i in range(3)}
    return {name.decode(): index for name, index in names.items() if name is not None}


def threads() -> int:
    """OMP_NUM_THREADS if it is set, as for NumPy's own libraries; otherwise the usable cores."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if given.isdigit() and int(given) > 0:
        return int(given)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=1024)
def loop(
    shape: Sequence[int], log_variance: Sequence[int] | None, order: Sequence[int] | None = None
) -> Loop | None:
    """The loop over dense features, or None if σ must be expanded to full size for it.

    Args:
        shape: the features' shape.
        log_variance: σ's shape, which broadcasts to it; None without σ.
        order: the features' axes in memory, as in `broadcasting.plan`.
    """
    if log_variance is None:
        return Loop(ROWS, 1, 1, prod(shape))
    runs = plan(shape, log_variance, order)
    if len(runs) > 3:  # as (1, C, 1, W) has: rare, and no kernel walks it
        return None
    outer, middle, inner = (1,) * (3 - len(runs)) + tuple(run.size for run in runs)
    if not runs[-1].kept:
        return Loop(ROWS, outer, middle, inner)
    return Loop(FULL if len(runs) == 1 else COLUMNS, outer, middle, inner)


def run(
    loop: Loop,
    *,
    pointers: Sequence[int | None],
    dtypes: Sequence[str],
    shape: Sequence[int],
    options: LossOptions,
    threads: int,
    instructions: int = -1,
) -> None:
    """One call of the kernel.

    Args:
        loop: of `loop`.
        pointers: the addresses of student, teacher, σ, upstream (a number in the arithmetic's
            dtype), and of the outputs: loss (the same), the gradients by student, teacher and σ,
            each in its input's dtype and memory order. None is absent, or not wanted.
        dtypes: of student, teacher and, if there is one, σ.
        shape: of the features as the caller has them, whose first axis are the samples.
        options: of the loss.
        threads: the most threads to use, the calling one among them.
        instructions: a number of `instruction_sets`; −1 is the best.
    Raises:
        MemoryError: no room for the partial sums.
        ValueError: the processor lacks the instruction set.
    """
    assert LIBRARY is not None, MISSING
    low, high = options.clamp or (-inf, inf)
    scale = options.weight / denominator(tuple(shape), options.reduction)
    codes = [DTYPES[name] for name in dtypes] + [0] * (3 - len(dtypes))
    problem = PROBLEM.pack(
        *[pointer or 0 for pointer in pointers], *loop[1:],
        scale, options.prior_weight, options.beta, low, high,
        *codes, loop.form, threads, instructions,
    )  # fmt: skip
    status = LIBRARY.ulfd_fused(problem)
    if status == 1:
        raise MemoryError("ulfd: no memory for the native kernel's partial sums.")
    if status:
        raise ValueError(f"ulfd: no instruction set {instructions}; use {instruction_sets()}.")
