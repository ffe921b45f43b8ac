"""Time on a GPU by CUDA events, while the device is kept busy until the host has enqueued all."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

CALLS, ROUNDS, WARMUP = 8, 15, 3
BUSY = 50_000_000  # cycles, about 30 ms
Run = Callable[[], Any]


class Moment:
    """A point in the device's stream; the difference of two is in seconds, and waits for them.

    `Moment.now` is a clock for pytest-benchmark: neither launch gaps nor Python's time enter.
    """

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def __sub__(self, earlier: "Moment") -> float:
        self.event.synchronize()
        return earlier.event.elapsed_time(self.event) / 1e3


def keep_busy() -> None:
    """Has the device wait after all earlier work, while the host enqueues what is timed next."""
    torch.cuda.synchronize()
    torch.cuda._sleep(BUSY)


def cold(device: str = "cuda") -> Run:
    """A call that empties the second-level cache, and then keeps the device busy."""
    size = 4 * torch.cuda.get_device_properties(device).L2_cache_size
    filler = torch.empty(size, dtype=torch.uint8, device=device)

    def empty() -> None:
        filler.zero_()
        keep_busy()

    return empty


def device_time(runs: Sequence[Run], rounds: int = ROUNDS) -> float:
    """Seconds of one call on the device, the median of the rounds.

    Args:
        runs: the same on different data, by turns; each set is larger than the second-level cache,
            so that every call finds it cold.
        rounds: each of `CALLS` calls.
    """
    rotation = itertools.cycle(runs)
    for _ in range(WARMUP):
        next(rotation)()
    times = []
    for _ in range(rounds):
        keep_busy()
        start = Moment()
        for _ in range(CALLS):
            next(rotation)()
        times.append((Moment() - start) / CALLS)
    return statistics.median(times)


def host_time(run: Run) -> float:
    """Seconds of one call and the wait for it, the median."""
    times = []
    for _ in range(30):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
