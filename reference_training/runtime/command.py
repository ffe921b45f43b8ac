"""What all commands do alike: one message instead of a traceback, and an exit code."""

import io
import os
import sys
from collections.abc import Callable

from reference_training.runtime.errors import RunError
from reference_training.runtime.ranks import is_main
from reference_training.runtime.stop import Interrupted

READER_LEFT = 141
"""The exit code that a shell gives a program which SIGPIPE ended."""


def exit_code(work: Callable[[], object], again: Callable[[], str] | None = None) -> int:
    """Does the work of a command.

    Args:
        work: what was asked for.
        again: the command line that continues it; None where nothing is continued.
    Returns:
        0; 1 after an error that the user can mend, whose message was printed; 130 if interrupted;
        141 if the reader of what it prints left before its end, as `head` does.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without σ or ± gets a ? for it
            stream.reconfigure(errors="replace")
    try:
        work()
    except (RunError, ImportError) as error:
        if is_main():  # `ranks.join` has told what is another rank's alone
            print(f"error: {error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt) as error:
        if is_main():
            why = str(error) or "interrupted"
            end = f", everything is saved; continue with: {again()}" if again else ""
            print(f"\n{why}{end}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _reader_left("\n"):  # some other pipe: a bug
            raise
        return READER_LEFT
    finally:
        _reader_left()
    return 0


def _reader_left(more: str = "") -> bool:
    """Whether nobody reads standard output any more; what is left of it then goes nowhere."""
    try:
        print(end=more, flush=True)
    except BrokenPipeError:
        # Python would try, and complain, once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
