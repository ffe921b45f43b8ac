"""`--processes 8`: several processes of one command on this machine, as torchrun starts them.

torchrun itself prints a traceback for every exit code but 0, which no rank can prevent. Its
launcher, called from here, raises instead, and what there is to say fits in one line.
"""

import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import parse_args, run

from reference_training.runtime.errors import RunError
from reference_training.runtime.ranks import LOST, OURS, launched

KILLED = 128
"""What a shell adds to the number of the signal that ended a program."""
FOLLOWING = {-signal.SIGTERM, -signal.SIGABRT}
"""The codes of ranks that another's failure ended: by the launcher, or by NCCL's watchdog."""


def start(module: str, arguments: Sequence[str] | None, processes: int) -> int | None:
    """Runs a command in so many processes.

    Args:
        module: of the command, as "reference_training.run".
        arguments: of the command; None is this process's own.
        processes: how many; 1 starts none.
    Returns:
        The exit code: 0, or that of the rank whose failure was the cause, which is told. None where
        this process has to do the work itself: it is the only one, or one of those started.
    Raises:
        RunError: torchrun has started another number of processes.
    """
    if processes < 1:
        raise RunError(f"--processes is {processes}, but must be at least 1.")
    if launched() > 1 and processes not in (1, launched()):
        raise RunError(
            f"--processes is {processes}, but torchrun started {launched()} in all; leave one out."
        )
    if launched() > 1 or processes == 1:
        return None
    logging.disable(logging.ERROR)  # the launcher's own report of what the ranks have said
    given = sys.argv[1:] if arguments is None else arguments
    options = ["--standalone", f"--nproc-per-node={processes}", "-m", module]
    os.environ[OURS] = "1"
    try:
        run(parse_args([*options, *given]))
    except SignalException as error:
        return KILLED + error.sigval
    except ChildFailedError as error:
        return _tell(error.failures)
    finally:
        logging.disable(logging.NOTSET)
        del os.environ[OURS]
    return 0


def _tell(failures: Mapping[int, ProcessFailure]) -> int:
    """Prints what caused the ranks' failures, unless rank 0 has; returns the exit code."""
    ended = sorted(failures.items(), key=lambda item: item[1].timestamp)
    for rank, failure in ended:
        if failure.exitcode < 0 and failure.exitcode not in FOLLOWING:
            short = failure.exitcode == -signal.SIGKILL
            why = "; the machine's memory may have been too small" if short else ""
            print(
                f"error: rank {rank} was ended by {failure.signal_name()}{why}. Give the same "
                "command again: it continues.",
                file=sys.stderr,
            )
            return KILLED - failure.exitcode
    # A bug has no message but a traceback, which the rank itself has printed.
    contents: list[tuple[int, Any]] = [(rank, failure.message) for rank, failure in ended]
    said = {rank: str(found["message"]) for rank, found in contents if isinstance(found, dict)}
    for rank, message in said.items():
        error = message.removeprefix("error: ")
        if rank != 0 and message != said.get(0) and not error.startswith(LOST):
            print(f"error on rank {rank}: {error}", file=sys.stderr)
            return failures[rank].exitcode
    code = max(failure.exitcode for failure in failures.values())
    if not said:
        rank, failure = ended[0]
        print(f"error: rank {rank} ended with exit code {failure.exitcode}.", file=sys.stderr)
    return code if code > 0 else KILLED - code
