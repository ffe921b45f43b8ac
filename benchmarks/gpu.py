"""GPU benchmark of the fused kernels: `python -m benchmarks.gpu --out FILE [--tune]`.

Method. Device time by CUDA events around CALLS calls that the host enqueues while the device is
kept busy, so that neither launch gaps nor Python's time enter; the median of ROUNDS such rounds.
Inputs rotate between SETS sets, each larger than the second-level cache, so that every call finds
it cold. Bytes are what the algorithm must move, each input read and each output written once per
pass; the share of the datasheet's bandwidth and that of a copy with the same mix of reads and
writes, measured here on the same card, follow from them. Host time is a call with a wait after it.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

import ulfd
import ulfd_torch
from ulfd.kernels import triton_configs

SHAPE = (256, 2048, 7, 7)  # ResNet-50's last feature, batch 256
SIGMAS = {
    "full": SHAPE,
    "spatial": (256, 1, 7, 7),
    "sample": (256, 1, 1, 1),
    "channel": (1, 2048, 1, 1),
}
CALLS, ROUNDS, SETS = 8, 15, 2
DATASHEET = {"H100": 3.35, "H200": 4.8, "A100": 2.039, "B200": 8.0}  # TB/s; see ahead_of_time
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def device_time(
    function: Callable[[Inputs], Any], sets: list[Inputs], rounds: int = ROUNDS
) -> float:
    """Seconds of one call on the device, the median of the rounds."""
    rotation = itertools.cycle(sets)
    for _ in range(3):
        function(next(rotation))
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        torch.cuda._sleep(50_000_000)  # about 30 ms, in which the host enqueues all calls
        start.record()
        for _ in range(CALLS):
            function(next(rotation))
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / CALLS)
    return statistics.median(times)


def host_time(function: Callable[[Inputs], Any], one: Inputs) -> float:
    """Seconds of one call and the wait for it, the median."""
    times = []
    for _ in range(30):
        torch.cuda.synchronize()
        start = time.perf_counter()
        function(one)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


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


def ceilings(dtype: torch.dtype) -> dict[str, Any]:
    """The fastest copy of each mix over several block sizes, and torch's own copy."""
    size = triton.next_power_of_2(SHAPE[0] * SHAPE[1]) * 49
    arrays = [[torch.randn(size, device="cuda").to(dtype) for _ in range(3)] for _ in range(SETS)]
    outputs = [torch.empty(size, dtype=dtype, device="cuda") for _ in range(2)]
    results: dict[str, Any] = {}
    for reads, writes in ((3, 2), (2, 1), (3, 0), (2, 0)):
        best = None
        for block, warps in itertools.product((1024, 2048, 4096, 8192), (4, 8)):
            constants = {"BLOCK": block, "READS": reads, "WRITES": writes, "num_warps": warps}

            def run(tensors: Any, constants: Any = constants) -> None:
                _mix[(size // constants["BLOCK"],)](*tensors, *outputs, **constants)

            seconds = device_time(run, arrays)  # type: ignore[arg-type]
            if best is None or seconds < best[0]:
                best = (seconds, block, warps)
        moved = (reads + writes) * size * dtype.itemsize
        results[f"{reads} read {writes} written"] = {
            "seconds": best[0],
            "bytes": moved,
            "TB/s": moved / best[0] / 1e12,
            "block": best[1],
            "warps": best[2],
        }
    seconds = device_time(lambda tensors: outputs[0].copy_(tensors[0]), arrays)  # type: ignore
    moved = 2 * size * dtype.itemsize
    results["torch copy_"] = {"seconds": seconds, "TB/s": moved / seconds / 1e12}
    return results


def inputs(
    sigma: tuple[int, ...] | None, dtype: torch.dtype, layout: torch.memory_format
) -> Inputs:
    """Student, teacher (detached), σ and the upstream gradient 0.37."""

    def random(shape: tuple[int, ...]) -> Tensor:
        full = torch.randn(shape, device="cuda").to(dtype)
        return full.contiguous(memory_format=layout)

    given = random(sigma).requires_grad_() if sigma is not None else None
    upstream = torch.tensor(0.37, device="cuda")
    return random(SHAPE).requires_grad_(), random(SHAPE), given, upstream  # type: ignore


class SaveAndScale(torch.autograd.Function):
    """Gradients stored by the forward pass and scaled by the backward pass, as some do."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, sigma: Tensor) -> Tensor:
        loss, gradients = ulfd_torch.value_and_grad(
            student, teacher, sigma, teacher_gradient=False, implementation="triton"
        )
        ctx.save_for_backward(gradients.student, gradients.log_variance)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, Tensor]:
        by_student, by_sigma = ctx.saved_tensors
        return by_student.mul_(upstream), None, by_sigma.mul_(upstream)


def implementations() -> dict[str, dict[str, Callable[[Inputs], Any]]]:
    """The contestants, by task and name."""

    def composite(student: Tensor, teacher: Tensor, sigma: Tensor) -> Tensor:
        return ulfd_torch.ulfd_loss(student, teacher, sigma, implementation="composite")

    def fused(student: Tensor, teacher: Tensor, sigma: Tensor) -> Tensor:
        return ulfd_torch.ulfd_loss(student, teacher, sigma, implementation="triton")

    compiled = torch.compile(composite, fullgraph=True)

    def forward(loss: Callable[..., Tensor]) -> Callable[[Inputs], Any]:
        def run(given: Inputs) -> Any:
            with torch.no_grad():
                return loss(*given[:3])

        return run

    def both(loss: Callable[..., Tensor]) -> Callable[[Inputs], Any]:
        def run(given: Inputs) -> Any:
            return torch.autograd.grad(loss(*given[:3]), (given[0], given[2]), given[3])

        return run

    def one_pass(given: Inputs) -> Any:
        with torch.no_grad():
            return ulfd_torch.value_and_grad(
                *given[:3], upstream=given[3], teacher_gradient=False, implementation="triton"
            )

    return {
        "forward": {
            "eager": forward(composite),
            "torch.compile": forward(compiled),
            "fused": forward(fused),
        },
        "forward and backward": {
            "eager": both(composite),
            "torch.compile": both(compiled),
            "save and scale": both(SaveAndScale.apply),
            "fused, recomputed": both(fused),
            "fused, one pass": one_pass,
        },
    }


def compare(dtype: torch.dtype, name: str, layout: torch.memory_format) -> list[dict[str, Any]]:
    """Every contestant on one σ shape."""
    torch._dynamo.reset()
    sets = [inputs(SIGMAS[name], dtype, layout) for _ in range(SETS)]
    word = sets[0][0].numel() * dtype.itemsize
    full = name == "full"
    rows = []
    for task, contestants in implementations().items():
        # forward: ẑ, z and a full σ; backward: again, and the gradients of ẑ and a full σ
        ideal = word * (3 if full else 2) + (word * (2 if full else 1) if "back" in task else 0)
        for contestant, function in contestants.items():
            start = time.perf_counter()
            function(sets[0])
            torch.cuda.synchronize()
            first = time.perf_counter() - start
            seconds = device_time(function, sets)
            rows.append(
                {
                    "dtype": str(dtype)[6:],
                    "sigma": name,
                    "layout": "NHWC" if layout == torch.channels_last else "NCHW",
                    "task": task,
                    "implementation": contestant,
                    "seconds": seconds,
                    "host_seconds": host_time(function, sets[0]),
                    "first_call_seconds": first,
                    "one_pass_bytes": ideal,
                    "TB/s of one pass": ideal / seconds / 1e12,
                }
            )
    return rows


COLUMN_PROBLEMS = (
    ("spatial", torch.contiguous_format),
    ("channel", torch.contiguous_format),
    ("channel", torch.channels_last),
)


def tune(dtype: torch.dtype, seconds: float) -> tuple[triton_configs.Columns, list[dict[str, Any]]]:
    """The configuration of `over_columns` with the best geometric mean, and all that was tried."""
    chosen = triton_configs.config
    one_pass = implementations()["forward and backward"]["fused, one pass"]
    problems = {
        (name, layout): [inputs(SIGMAS[name], dtype, layout) for _ in range(SETS)]
        for name, layout in COLUMN_PROBLEMS
    }
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
        times = [device_time(one_pass, sets, rounds=5) for sets in problems.values()]
        means[columns] = statistics.geometric_mean(times)
        rows.append({"dtype": str(dtype)[6:], "columns": vars(columns), "seconds": times})
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
            (rate for name, rate in DATASHEET.items() if name in properties.name), None
        ),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    parser.add_argument(
        "--tune",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="first search; writes FILE.configs.json, which ULFD_TRITON_CONFIGS then names",
    )
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": machine(), "shape": SHAPE, "copies": {}, "rows": []}
    best: dict[int, triton_configs.Config] = {}
    for dtype in (torch.float32, torch.bfloat16):
        results["copies"][str(dtype)[6:]] = ceilings(dtype)
        if arguments.tune:
            columns, tried = tune(dtype, arguments.tune / 2)
            best[dtype.itemsize] = triton_configs.Config(columns=columns)
            results.setdefault("tuning", []).extend(tried)
            print(dtype, "best of", len(tried), columns, flush=True)
    if best:
        major, minor = torch.cuda.get_device_capability()
        path = arguments.out.with_suffix(".configs.json")
        table = {f"sm_{major}{minor}": {size: asdict(config) for size, config in best.items()}}
        path.write_text(json.dumps(table, indent=1) + "\n")
        os.environ[triton_configs.TUNED_FILE] = str(path)
    for dtype, name, layout in itertools.product(
        (torch.float32, torch.bfloat16), SIGMAS, (torch.contiguous_format, torch.channels_last)
    ):
        if layout == torch.channels_last and name in ("full", "sample"):
            continue  # the same memory, the same kernel
        for row in compare(dtype, name, layout):
            results["rows"].append(row)
            mix = _mix_of(row)
            copy = results["copies"][row["dtype"]][mix]["TB/s"]
            row["share of the copy"] = row["TB/s of one pass"] / copy
            rate = results["machine"]["datasheet TB/s"]
            row["share of the datasheet"] = rate and row["TB/s of one pass"] / rate
            print(
                f"{row['dtype']:9}{name:8}{row['layout']:5}{row['task']:21}"
                f"{row['implementation']:18}{row['seconds'] * 1e6:8.1f} µs"
                f"{row['TB/s of one pass']:7.2f} TB/s {row['share of the copy']:6.1%} of the copy"
                f"  first call {row['first_call_seconds']:.2f} s"
                f"  host {row['host_seconds'] * 1e6:.0f} µs",
                flush=True,
            )
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")


def _mix_of(row: dict[str, Any]) -> str:
    reads = 3 if row["sigma"] == "full" else 2
    writes = 0 if row["task"] == "forward" else reads - 1
    return f"{reads} read {writes} written"


if __name__ == "__main__":
    main()
