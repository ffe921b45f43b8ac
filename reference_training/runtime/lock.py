"""One writer for each run folder: a lock that the operating system frees when its holder dies."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from reference_training.runtime.errors import RunError

try:
    import fcntl
except ImportError:  # Windows has no such locks: nothing is locked there
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
PATIENCE = 20.0
"""Seconds that the workers of a killed process get to end."""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """While active, this process alone writes into `folder`, which is made if it is not there.

    Raises:
        RunError: another process, which it names, holds the folder; or it cannot be written.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}. Choose another folder with --out."
        ) from error
    with file:
        if fcntl is not None:
            try:
                _lock(file, path)
            except BlockingIOError as error:
                raise RunError(_taken(folder, path)) from error
            except OSError as error:  # some network file systems have no locks
                print(
                    f"{folder} cannot be locked ({error.strerror}): see to it yourself that no "
                    "other process writes there.",
                    file=sys.stderr,
                )
        file.truncate(0)
        own = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%F %T")}
        file.write(json.dumps(own))
        file.flush()
        yield


def _lock(file: TextIO, path: Path) -> None:
    """Takes the lock; waits for the workers of a process that was killed, which soon end too.

    Raises:
        BlockingIOError: another process holds it.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end or not _was_killed(path):
                raise
        time.sleep(0.2)


def _was_killed(path: Path) -> bool:
    """Whether the process that the lock names is no more, on this machine."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        if holder["host"] == socket.gethostname():
            os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError, TypeError):  # it is just being written
        pass
    return False


def _taken(folder: Path, path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        who = "process {pid} on {host}, since {since},".format(**holder)
    except (OSError, ValueError, KeyError, TypeError):  # it is just being written
        who = "another process"
    return (
        f"{who} writes into {folder}. Wait for its end, end it, or choose another folder with "
        "--out; whatever it has saved is continued."
    )
