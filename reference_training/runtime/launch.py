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

from reference_training.runtime.command import READER_LEFT
from reference_training.runtime.errors import RunError
from reference_training.runtime.ranks import LOST, OURS, launched

KILLED = 128
"""What a shell adds to the number of the signal that ended a program."""


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
        RunError: torchrun has started processes already.
    """
    if processes < 1:
        raise RunError(f"--processes is {processes}, but must be at least 1.")
    if OURS in os.environ or processes == 1:
        return None
    if launched() > 1:
        raise RunError(
            f"--processes is {processes}, but torchrun started {launched()} in all; leave one out."
        )
    given = sys.argv[1:] if arguments is None else arguments
    options = ["--standalone", f"--nproc-per-node={processes}", "-m", module]
    asked = parse_args([*options, *given])
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up and signal.getsignal(hang_up) is signal.SIG_IGN:  # by nohup
        asked.signals_to_handle = "SIGTERM,SIGINT,SIGQUIT"
    os.environ[OURS] = "1"
    logging.disable(logging.ERROR)  # the launcher's own report of what the ranks have said
    try:
        run(asked)
    except SignalException as error:
        return KILLED + error.sigval
    except ChildFailedError as error:
        return _tell(error.failures)
    finally:
        logging.disable(logging.NOTSET)
        del os.environ[OURS]
    return 0


def _tell(failures: Mapping[int, ProcessFailure]) -> int:
    """Prints what caused the ranks' failures, unless a rank has; returns the exit code."""
    messages: dict[int, Any] = {rank: failure.message for rank, failure in failures.items()}
    said = {
        rank: str(found["message"]) for rank, found in messages.items() if isinstance(found, dict)
    }

    def lateness(rank: int) -> tuple[int, int, int]:
        """How surely another rank's failure came first, and when this one came."""
        code, message = failures[rank].exitcode, said.get(rank, "")
        followed = {-signal.SIGABRT: 2, -signal.SIGTERM: 4}  # by NCCL's watchdog, by the launcher
        step = 3 if LOST in message else followed.get(code, 0 if code < 0 else 1)
        return step, failures[rank].timestamp, rank

    rank = min(failures, key=lateness)
    code = failures[rank].exitcode
    if code == READER_LEFT:  # which one process says to nobody either
        return code
    if rank not in said and code > 0:
        print(f"error: rank {rank} ended with exit code {code}.", file=sys.stderr)
    elif rank not in said:
        why = "; the machine's memory may have been too small" if code == -signal.SIGKILL else ""
        print(
            f"error: rank {rank} was ended by {failures[rank].signal_name()}{why}. Give the same "
            "command again: it continues.",
            file=sys.stderr,
        )
    elif rank != 0 and LOST in said.get(0, LOST):  # else rank 0 has printed its own
        print(f"error on rank {rank}: {said[rank].removeprefix('error: ')}", file=sys.stderr)
    return code if code > 0 else KILLED - code
