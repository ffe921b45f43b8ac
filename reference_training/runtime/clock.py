"""`Clock`: where the time goes, without making anybody wait for it."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Adds up the seconds of each part of the training iterations.

    On CUDA batches are made while others are trained on, so the parts may be more than the whole.

    On CUDA the parts are measured by events in the stream, which are only looked at by `read`.

    Args:
        device: where the parts compute.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self._seconds: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._since = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts what runs inside as `name`, by the device's time."""
        if not self.cuda:
            with self.waiting(name):
                yield
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        yield
        end.record()
        self._events.append((name, begin, end))

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Counts what runs inside as `name`, by this process's own time."""
        started = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - started

    def read(self) -> dict[str, float]:
        """The seconds of each part since the last call, and of everything together ("all")."""
        events, self._events = self._events, []  # another thread may go on adding to the new ones
        if self.cuda:
            torch.cuda.synchronize()
        for name, begin, end in events:
            self._seconds[name] += begin.elapsed_time(end) / 1000
        now = time.perf_counter()
        seconds = dict(self._seconds) | {"all": now - self._since}
        self._seconds.clear()
        self._since = now
        return seconds
