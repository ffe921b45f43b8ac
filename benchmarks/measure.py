"""How the CPU benchmarks measure: candidates by turns, medians with spread, memory, the limit."""

import ctypes
import gc
import platform
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ulfd.kernels.cpu import library

SECONDS, FEWEST, MOST = 3.0, 7, 41
SHORT = 1e-3  # seconds
LIBC = ctypes.CDLL(None)
Run = Callable[[], Any]
Clock = Callable[[], float]


def by_turns(
    candidates: Mapping[str, Run], clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of every round of every candidate; each round has its own order, drawn once for all.

    A drift of the machine's speed then meets all of them, and the ratio of two candidates can be
    taken round by round; nor does one always meet what the same other one has left of the heap and
    the caches. As many rounds as fit into about three seconds a candidate.

    Single calls are timed, which find the caches as the others left them. Where any candidate takes
    less than a millisecond, every one is repeated until the clock is fine enough. The clock gives
    seconds; `time.process_time` leaves out the waiting for other programs, and adds all threads up.
    """
    order, generator = list(candidates), random.Random(0)
    once = {name: _seconds(run, 1, clock) for name, run in candidates.items()}
    rounds = int(SECONDS * len(once) / sum(once.values()))
    short = min(once.values()) < SHORT
    repeats = {name: 1 + int(2 * SHORT / took) if short else 1 for name, took in once.items()}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(min(max(rounds, FEWEST), MOST)):
        generator.shuffle(order)
        for name in order:
            if short:
                candidates[name]()
            times[name].append(_seconds(candidates[name], repeats[name], clock))
    return times


def _seconds(run: Run, repeats: int, clock: Clock) -> float:
    """The mean time of a call."""
    start = clock()
    for _ in range(repeats):
        run()
    return (clock() - start) / repeats


def summary(times: Mapping[str, list[float]], reference: str) -> dict[str, dict[str, Any]]:
    """Median and quartiles in milliseconds, and the median ratio of the reference's time to it."""
    return {
        name: {
            "median_ms": 1e3 * statistics.median(values),
            "quartiles_ms": [1e3 * value for value in statistics.quantiles(values, n=4)[::2]],
            "rounds": len(values),
            "speed": statistics.median(
                theirs / mine for mine, theirs in zip(values, times[reference], strict=True)
            ),
        }
        for name, values in times.items()
    }


def peak_memory(run: Run) -> int | None:
    """Bytes by which one call raises the process's resident memory at its peak; Linux only."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    gc.collect()
    LIBC.malloc_trim(0)  # what earlier candidates left to the allocator would hide this one's

    def kilobytes(field: str) -> int:
        return int(status.read_text().split(f"{field}:")[1].split()[0])

    before = kilobytes("VmRSS")
    reset.write_text("5")
    result = run()
    peak = kilobytes("VmHWM")
    del result
    return 1024 * (peak - before)


def streaming_compiler() -> str | None:
    """What compiles streaming.cpp; None without a compiler, or where its intrinsics are none."""
    if platform.machine() != "x86_64":
        return None
    return shutil.which("g++") or shutil.which("clang++")


@cache
def streaming(threads: int) -> Callable[..., None]:
    """The fastest pass that memory allows: reads three arrays, writes two around the caches.

    Compiled here and now from streaming.cpp, for this very processor, with the kernel's own pool of
    threads. The function takes NumPy arrays of one size, the outputs last.
    """
    compiler = streaming_compiler()
    assert compiler is not None
    source, kernel = Path(__file__).with_name("streaming.cpp"), Path(library.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "streaming.so"
        flags = f"-O3 -march=native -std=c++17 -shared -fPIC -pthread -I{kernel}".split()
        sources = [str(source), str(kernel / "threads.cpp")]
        subprocess.run([compiler, *flags, *sources, "-o", str(built)], check=True)
        function = ctypes.CDLL(str(built)).stream

    def run(*given: np.ndarray) -> None:
        assert len(given) == 5
        pointers = (ctypes.c_void_p * 5)(*(array.ctypes.data for array in given))
        function(pointers, ctypes.c_long(given[0].nbytes), threads)

    return run


def machine(threads: int) -> dict[str, Any]:
    """What a reader must know of the processor."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next(
            (line.split(": ")[1] for line in lines if line.startswith("model name")), model
        )
    return {"processor": model, "architecture": platform.machine(), "threads": threads}
