"""GPU benchmark of the fused kernels: `python -m benchmarks.gpu --out FILE [--tune]`.

Method. Device time by CUDA events around CALLS calls that the host enqueues while the device is
kept busy, so that neither launch gaps nor Python's time enter; the median of ROUNDS such rounds
(`benchmarks.device_clock`). Inputs rotate between SETS sets, each larger than the second-level
cache, so that every call finds it cold. Bytes are what the algorithm must move, each input read and
each output written once per pass; the share of the datasheet's bandwidth and that of a copy with
the same mix of reads and writes, measured here on the same card, follow from them. Host time is a
call with a wait after it. Every candidate is checked against the float64 closed form first.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import time
from dataclasses import asdict
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

import ulfd
from benchmarks.device_clock import Run, device_time, host_time
from benchmarks.losses import ON_GPU, Oracle, serving, tensors, triton_one_pass
from benchmarks.problems import BOTH, GPU_COLUMNS, GPU_LOSSES, GPU_SHAPE, ITEMSIZES, LossProblem
from ulfd.kernels import triton_configs
from ulfd.kernels.ahead_of_time import BANDWIDTHS

SETS = 2


@triton.jit
def _mix(a, b, c, x, y, BLOCK: tl.constexpr, READS: tl.constexpr, WRITES: tl.constexpr):
    """Reads 2 or 3 arrays and writes 0 to 2 of the same size: the ceiling for such a mix."""
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(a + offset).to(tl.float32) - tl.load(b + offset).to(tl.float32)
    other = value
    if READS == 3:
        other = tl.load(c + offset).to(tl.float32)
    if WRITES >= 1:
        tl.store(x + offset, value + other)
    if WRITES == 2:
        tl.store(y + offset, value - other)
    if WRITES == 0:
        tl.store(x + tl.program_id(0), tl.sum(value * other))


def ceilings(dtype: str) -> dict[str, Any]:
    """The fastest copy of each mix over several block sizes, and torch's own copy."""
    size = triton.next_power_of_2(prod(GPU_SHAPE[:2])) * prod(GPU_SHAPE[2:])
    kind = getattr(torch, dtype)
    arrays = [[torch.randn(size, device="cuda").to(kind) for _ in range(3)] for _ in range(SETS)]
    outputs = [torch.empty(size, dtype=kind, device="cuda") for _ in range(2)]
    results: dict[str, Any] = {}
    for reads, writes in ((3, 2), (2, 1), (3, 0), (2, 0)):
        best = None
        for block, warps in itertools.product((1024, 2048, 4096, 8192), (4, 8)):
            constants = {"BLOCK": block, "READS": reads, "WRITES": writes, "num_warps": warps}
            launch = partial(_mix[(size // block,)], **constants)
            seconds = device_time([partial(launch, *given, *outputs) for given in arrays])
            if best is None or seconds < best[0]:
                best = (seconds, block, warps)
        moved = (reads + writes) * size * kind.itemsize
        results[_mix_name(reads, writes)] = {
            "seconds": best[0],
            "bytes": moved,
            "TB/s": moved / best[0] / 1e12,
            "block": best[1],
            "warps": best[2],
        }
    seconds = device_time([partial(outputs[0].copy_, given[0]) for given in arrays])
    moved = 2 * size * kind.itemsize
    results["torch copy_"] = {"seconds": seconds, "TB/s": moved / seconds / 1e12}
    return results


def _mix_name(reads: int, writes: int) -> str:
    return f"{reads} read {writes} written"


def compare(
    problem: LossProblem, copies: dict[str, Any], card: dict[str, Any]
) -> list[dict[str, Any]]:
    """Every candidate on one problem.

    Args:
        problem: what is asked.
        copies: the `ceilings` of its dtype.
        card: what `machine` says.
    """
    copy, rate = copies[_mix_name(problem.reads, problem.writes)]["TB/s"], card["datasheet TB/s"]
    torch._dynamo.reset()
    sets = [tensors(problem, seed=seed, device="cuda") for seed in range(SETS)]
    oracle = Oracle(problem, sets[0])
    rows = []
    for candidate in serving(ON_GPU, problem):
        runs = [candidate.make(problem, given) for given in sets]
        start = time.perf_counter()
        results = runs[0]()
        torch.cuda.synchronize()
        first = time.perf_counter() - start
        oracle.check(candidate, results)
        seconds = device_time(runs)
        speed = problem.one_pass_bytes / seconds / 1e12
        rows.append(
            {
                "dtype": problem.dtype,
                "sigma": problem.sigma,
                "layout": problem.layout,
                "task": problem.task,
                "implementation": candidate.name,
                "seconds": seconds,
                "host_seconds": host_time(runs[0]),
                "first_call_seconds": first,
                "one_pass_bytes": problem.one_pass_bytes,
                "TB/s of one pass": speed,
                "share of the copy": speed / copy,
                "share of the datasheet": rate and speed / rate,
            }
        )
    return rows


def tune(dtype: str, seconds: float) -> tuple[triton_configs.Columns, list[dict[str, Any]]]:
    """The configuration of `over_columns` with the best geometric mean, and all that was tried."""
    chosen = triton_configs.config
    problems = [
        LossProblem(GPU_SHAPE, dtype, sigma, layout, BOTH, upstream=0.37)
        for sigma, layout in GPU_COLUMNS
    ]
    runs: list[list[Run]] = [
        [
            triton_one_pass(problem, tensors(problem, seed=seed, device="cuda"))
            for seed in range(SETS)
        ]
        for problem in problems
    ]
    rows, means = [], {}
    end = time.monotonic() + seconds
    for (elements, warps), width, stages, programs in itertools.product(
        ((2048, 4), (4096, 8), (4096, 4)), (512, 1024, 2048), (1, 3), (512, 1024, 2048)
    ):
        if time.monotonic() > end:
            break
        columns = triton_configs.Columns(elements, warps, width, programs, stages)
        config = triton_configs.Config(columns=columns)
        triton_configs.config = lambda *_, config=config: config  # type: ignore
        times = [device_time(each, rounds=5) for each in runs]
        means[columns] = statistics.geometric_mean(times)
        rows.append({"dtype": dtype, "columns": vars(columns), "seconds": times})
    triton_configs.config = chosen
    return min(means, key=lambda columns: means[columns]), rows


def machine() -> dict[str, Any]:
    """What was measured, and on what."""
    properties = torch.cuda.get_device_properties(0)
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "L2_bytes": properties.L2_cache_size,
        "driver": driver,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "ulfd": ulfd.__version__,
        "datasheet TB/s": next(
            (
                rate
                for target in BANDWIDTHS.values()
                for name, rate in target.items()
                if name in properties.name
            ),
            None,
        ),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/gpu.json"))
    parser.add_argument(
        "--tune",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="first search; writes FILE.configs.json, which ULFD_TRITON_CONFIGS then names",
    )
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": machine(), "shape": GPU_SHAPE, "copies": {}, "rows": []}
    best: dict[int, triton_configs.Config] = {}
    for dtype, itemsize in ITEMSIZES.items():
        results["copies"][dtype] = ceilings(dtype)
        if arguments.tune:
            columns, tried = tune(dtype, arguments.tune / 2)
            best[itemsize] = triton_configs.Config(columns=columns)
            results.setdefault("tuning", []).extend(tried)
            print(dtype, "best of", len(tried), columns, flush=True)
    if best:
        major, minor = torch.cuda.get_device_capability()
        path = arguments.out.with_suffix(".configs.json")
        table = {f"sm_{major}{minor}": {size: asdict(config) for size, config in best.items()}}
        path.write_text(json.dumps(table, indent=1) + "\n")
        os.environ[triton_configs.TUNED_FILE] = str(path)
    for problem in GPU_LOSSES:
        for row in compare(problem, results["copies"][problem.dtype], results["machine"]):
            results["rows"].append(row)
            print(
                f"{row['dtype']:9}{row['sigma']:8}{row['layout']:5}{row['task']:21}"
                f"{row['implementation']:18}{row['seconds'] * 1e6:8.1f} µs"
                f"{row['TB/s of one pass']:7.2f} TB/s {row['share of the copy']:6.1%} of the copy"
                f"  first call {row['first_call_seconds']:.2f} s"
                f"  host {row['host_seconds'] * 1e6:.0f} µs",
                flush=True,
            )
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
