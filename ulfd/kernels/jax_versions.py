"""Which versions of JAX, jax-triton and Triton work together, as data: they move in lockstep.

The plain loss (`composite`) needs JAX alone. The Triton kernels in JAX need all of one row;
`ulfd.kernels.registry` refuses them elsewhere, with the reason, and `python -m ulfd.env` says it.
"""

import importlib.metadata
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

Range = tuple[str, str | None]  # from this version on, and below that one


@dataclass(frozen=True)
class Combination:
    """Versions that work together. `tested` are those that the tests have run with."""

    ranges: Mapping[str, Range]
    tested: str
    note: str


PTX_NOTE = "Triton 3.9 writes PTX 9.4 for sm_90 and newer: JAX's nvidia-cuda-nvcc must be 13.4+"
COMBINATIONS = (
    Combination(
        {
            "python": ("3.11", None),
            "jax": ("0.10", "0.11"),
            "jaxlib": ("0.10", "0.11"),
            "jax-triton": ("0.3.1", "0.4"),
            "triton": ("3.6", None),
        },
        tested="Python 3.11: JAX 0.10.0 with Triton 3.6.0, JAX 0.10.2 with 3.8.0 and 3.9.0",
        note=PTX_NOTE,
    ),
    Combination(
        {
            "python": ("3.12", None),
            "jax": ("0.11", "0.13"),
            "jaxlib": ("0.11", "0.13"),
            "jax-triton": ("0.4", "0.5"),
            "triton": ("3.7", None),
        },
        tested="Python 3.12, JAX 0.11.0, jax-triton 0.4.0, Triton 3.7.0; "
        "Python 3.13, JAX 0.12.0.1, jax-triton 0.4.1, Triton 3.9.0",
        note=PTX_NOTE,
    ),
)


def _numbers(version: str) -> tuple[int, ...]:
    """(0, 10, 2) of "0.10.2.dev1": its leading numbers."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _within(version: str, limits: Range) -> bool:
    low, high = limits
    return _numbers(low) <= _numbers(version) and (
        high is None or _numbers(version) < _numbers(high)
    )


def table() -> str:
    """The combinations as a Markdown table."""
    names = list(COMBINATIONS[0].ranges)
    header = [*names, "tested", "note"]
    rows = [
        [*(worded(row.ranges[name]) for name in names), row.tested, row.note]
        for row in COMBINATIONS
    ]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def worded(limits: Range) -> str:
    """As ">= 0.10, < 0.11"."""
    low, high = limits
    return f">= {low}" if high is None else f">= {low}, < {high}"


def mismatch(versions: Mapping[str, str]) -> str | None:
    """Why these versions are no row of the table, or None if they are one.

    Args:
        versions: by the names of `Combination.ranges`.
    """
    reasons = []
    for row in COMBINATIONS:
        wrong = [
            f"{name} {versions[name]} (needs {worded(limits)})"
            for name, limits in row.ranges.items()
            if not _within(versions[name], limits)
        ]
        if not wrong:
            return None
        reasons.append(", ".join(wrong))
    return "untested together: " + "; or ".join(reasons)


@cache
def unavailable() -> str | None:
    """Why Triton kernels cannot serve JAX in this installation, or None if they can."""
    versions = {"python": platform.python_version()}
    for name in COMBINATIONS[0].ranges.keys() - versions.keys():
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return f"{name} is not installed: pip install 'ulfd[jax-gpu]'"
    return mismatch(versions)
