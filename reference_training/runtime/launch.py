"""`--processes 8`: several processes of one command on this machine, as torchrun starts them.

torchrun itself prints a traceback for every exit code but 0, which no rank can prevent. Its
launcher, called from here, raises instead, and what there is to say fits in one line.
"""

import logging
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from reference_training.runtime.errors import RunError
from reference_training.runtime.ranks import launched

KILLED = 128
"""What a shell adds to the number of the signal that ended a program."""


def start(module: str, arguments: Sequence[str] | None, processes: int) -> int | None:
    """Runs a command in so many processes.

    Args:
        module: of the command, as "reference_training.run".
        arguments: of the command; None is this process's own.
        processes: how many; 1 starts none.
    Returns:
        The exit code: 0, or that of the rank which failed first, whose message it has printed. None
        where this process has to do the work itself: it is the only one, or one of those started.
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
    try:
        run(parse_args([*options, *given]))
    except SignalException as error:
        return KILLED + error.sigval
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        print(
            f"error: rank {rank} was ended by {failure.signal_name()}; the machine's memory may "
            "have been too small. Give the same command again: it continues.",
            file=sys.stderr,
        )
        return KILLED - failure.exitcode
    finally:
        logging.disable(logging.NOTSET)
    return 0
