"""The shape of every kernel launch, as data: no GPU, no framework and no Triton needed.

`launch` turns a loop (`broadcasting.plan`) into the kernel, its grid and its arguments. The real
launch, the ahead-of-time report and the tests all take it from here, so they cannot disagree.

What may change from call to call without a recompilation (the batch size, λ, the upstream
gradient) is a runtime argument; what a model fixes (channels, height × width) is a constant.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import gcd, prod
from pathlib import Path
from types import MappingProxyType

from ulfd.broadcasting import Run, plan

NO_SIGMA, PER_ELEMENT, PER_ROW = 0, 1, 2
INT32_LIMIT = 2**31


@dataclass(frozen=True)
class Columns:
    """The tunable numbers of `over_columns`.

    Args:
        elements: features of one tile.
        warps: warps (of 32 or 64 threads) that share a tile.
        width: columns of a tile; its rows are elements / width.
        programs: how many programs to aim for; more of them fill the chip better but leave more
            partial sums.
        stages: tiles in flight; 1 is no software pipeline.
    """

    elements: int = 4096
    warps: int = 8
    width: int = 1024
    programs: int = 1024
    stages: int = 1


@dataclass(frozen=True)
class Config:
    """The tunable numbers for one architecture and width of the features' dtype.

    Args:
        elements: features of one tile of `over_rows`, which is one program.
        warps: warps that share it.
        columns: those of `over_columns`.
    """

    elements: int = 4096
    warps: int = 8
    columns: Columns = Columns()


DEFAULT = {4: Config(), 2: Config(columns=Columns(width=2048))}
# sm_90 is measured (benchmarks/results/gpu_h100.json); the others have not met their GPU yet.
CONFIGS: Mapping[str, Mapping[int, Config]] = MappingProxyType(
    {
        "sm_80": DEFAULT,
        "sm_90": {
            4: Config(columns=Columns(4096, 8, width=512, programs=512, stages=3)),
            2: Config(columns=Columns(2048, 4, width=1024, programs=1024, stages=3)),
        },
        "sm_100": DEFAULT,
        "sm_120": DEFAULT,
        "gfx942": DEFAULT,
    }
)


TUNED_FILE = "ULFD_TRITON_CONFIGS"


@lru_cache
def _tuned(path: str) -> dict[str, dict[int, Config]]:
    """The configurations in a file that `python -m benchmarks.gpu --tune` wrote."""
    return {
        architecture: {
            int(itemsize): Config(**{**values, "columns": Columns(**values["columns"])})
            for itemsize, values in table.items()
        }
        for architecture, table in json.loads(Path(path).read_text()).items()
    }


def config(architecture: str, itemsize: int) -> Config:
    """The numbers for features of `itemsize` bytes; other architectures take the default's.

    A file of tuned ones, named by the environment variable ULFD_TRITON_CONFIGS, goes first.
    """
    path = os.environ.get(TUNED_FILE)
    tuned = _tuned(path) if path else {}
    table = {**CONFIGS.get(architecture, DEFAULT), **tuned.get(architecture, {})}
    return table[itemsize]


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel over the features' memory.

    Args:
        kernel: "over_rows" or "over_columns".
        grid: programs.
        integers: the runtime integers, by name.
        constants: the compile-time constants that follow from the shapes, by name.
        warps: per program.
        sums: (outer, repeats, kept, inner), the shape of σ's partial gradients, to be summed over
            repeats and inner; None if the kernel writes σ's gradient itself, or σ is absent.
    """

    kernel: str
    grid: int
    integers: Mapping[str, int]
    constants: Mapping[str, int | bool] = field(default_factory=dict)
    warps: int = 8
    sums: tuple[int, int, int, int] | None = None


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _over_rows(rows: int, length: int, sigma: int, vector: int, config: Config) -> Launch:
    """Rows of `length` neighbours that share one σ (or none, or one each)."""
    block = config.elements
    if rows > 1 and length < block:
        block = max(16, _power_of_two(length))
    chunks = _ceil(length, block)
    height = config.elements // block if chunks == 1 and rows > 1 else 1
    return Launch(
        kernel="over_rows",
        grid=_ceil(rows, height) * chunks,
        integers={"rows": rows, "length": length, "chunks": chunks},
        constants={
            "SIGMA": sigma,
            "HEIGHT": height,
            "WIDTH": block,
            "SINGLE": rows == 1,
            "ALIGN": vector if rows > 1 and length % vector == 0 else 1,
        },
        warps=config.warps,
        sums=(rows, chunks, 1, 1) if sigma == PER_ROW and chunks > 1 else None,
    )


def _over_columns(
    outer: int, repeats: int, kept: int, inner: int, vector: int, config: Columns
) -> Launch:
    """`outer` times a table of `repeats` rows, whose columns (kept × inner) each have their σ.

    A row of 7 × 7 neighbours is neither a power of two nor a multiple of 16 bytes. The kernel
    therefore walks the same memory in rows of PERIOD = m·kept·inner elements: as many whole rows
    as fit its width, in a number that keeps every row on a 16-byte border.
    """
    length, row = repeats * kept * inner, kept * inner
    step = vector // gcd(vector, row)  # rows that together fill whole 16-byte words
    limit = config.width // row
    if outer > 1:
        # A table that ends off the border puts wide words out of reach in all that follow. A
        # single table is exempt: its repeats grow with the batch and must not become constants.
        step, limit = (step if repeats % step == 0 else 1), min(limit, repeats)
    merged = max(step, limit // step * step)
    period = merged * row
    width = min(config.width, max(128, _power_of_two(period)))
    height = config.elements // width if period * config.elements // width < INT32_LIMIT else 1
    tiles = _ceil(period, width)
    strips = _ceil(length, period * height)
    steps = max(1, strips * outer * tiles // config.programs)
    chunks = _ceil(strips, steps)
    return Launch(
        kernel="over_columns",
        grid=outer * chunks * tiles,
        integers={"length": length, "chunks": chunks, "steps": steps},
        constants={
            "KEPT": kept,
            "INNER": inner,
            "PERIOD": period,
            "HEIGHT": height,
            "WIDTH": width,
            "SINGLE": outer == 1,
            "ALIGN": vector if outer > 1 and length % vector == 0 else 1,
            "STAGES": config.stages,
        },
        warps=config.warps,
        sums=(outer, chunks * merged, kept, inner),
    )


def launch(size: int, runs: tuple[Run, ...] | None, itemsize: int, config: Config) -> Launch:
    """The launch that computes the loss of `size` elements.

    Args:
        size: number of elements of the features, at least 1.
        runs: `broadcasting.plan` of the features and σ, at most three; None without σ.
        itemsize: bytes of the narrowest dtype among the features, which sets how many elements
            a 16-byte word holds.
        config: the architecture's numbers.
    """
    vector = 16 // itemsize
    if runs is None:
        return _over_rows(1, size, NO_SIGMA, vector, config)
    sizes, kept = [run.size for run in runs], [run.kept for run in runs]
    if kept == [True]:
        return _over_rows(1, size, PER_ELEMENT, vector, config)
    if kept[-2:] == [True, False] and len(runs) == 2:
        return _over_rows(sizes[0], sizes[1], PER_ROW, vector, config)
    if kept == [False]:
        return _over_rows(1, size, PER_ROW, vector, config)
    # What remains ends in (reduced, kept) or in (reduced, kept, reduced).
    inner = 1 if kept[-1] else sizes.pop()
    columns, repeats = sizes.pop(), sizes.pop()
    return _over_columns(prod(sizes), repeats, columns, inner, vector, config.columns)


def for_features(
    shape: Sequence[int],
    log_variance: Sequence[int] | None,
    itemsize: int,
    config: Config,
    *,
    order: Sequence[int] | None = None,
) -> tuple[Launch, bool]:
    """The launch for dense features, and whether σ must be expanded to full size for it.

    Args:
        shape: the features' shape, with at least one element.
        log_variance: σ's shape, which broadcasts to it; None without σ.
        itemsize, config: as in `launch`.
        order: the features' axes in memory, as in `broadcasting.plan`.
    """
    size = prod(shape)
    if log_variance is None:
        return launch(size, None, itemsize, config), False
    runs = plan(shape, log_variance, order)
    if len(runs) > 3:  # as (1, C, 1, W) has: rare, and no kernel walks it
        return launch(size, (Run(size, True),), itemsize, config), True
    return launch(size, runs, itemsize, config), False
