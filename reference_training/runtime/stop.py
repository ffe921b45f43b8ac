"""Ctrl-C and SIGTERM end a run at the next safe point instead of in the middle of a step."""

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.synchronize import Event
from types import FrameType


class Interrupted(Exception):
    """The run was asked to stop, and everything up to here is saved."""


class StopOnSignal:
    """While active, the first SIGINT or SIGTERM sets `event` and `came`; a second one kills."""

    def __init__(self, event: Event | threading.Event) -> None:
        self.event = event
        self.came = False
        self._previous: dict[int, object] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        self.event.set()
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}

    def __enter__(self) -> "StopOnSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *details: object) -> None:
        self._restore()


class TimeLimit(threading.Event):
    """An event that is also set when the hours are over.

    Args:
        hours: from now on; None is for ever.
    """

    def __init__(self, hours: float | None) -> None:
        super().__init__()
        self._end = None if hours is None else time.monotonic() + 3600 * hours

    def is_set(self) -> bool:
        return super().is_set() or (self._end is not None and time.monotonic() >= self._end)


def end_with_parent() -> None:
    """Ends this process soon after its parent, which may be killed and then cannot end it.

    An orphan would go on for hours, and write beside the processes of the next start.
    """
    starter, parent = multiprocessing.parent_process(), os.getppid()

    def watch() -> None:
        if starter is not None:  # the system's parent may be a fork server, which lives on
            starter.join()
        else:
            while os.getppid() == parent:
                time.sleep(0.5)
        os._exit(1)  # all files are written atomically, so no moment is a bad one

    threading.Thread(target=watch, daemon=True).start()
