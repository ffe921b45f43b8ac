"""What all commands do alike: one message instead of a traceback, and an exit code."""

import io
import sys
from collections.abc import Callable

from reference_training.runtime.errors import RunError
from reference_training.runtime.ranks import is_main
from reference_training.runtime.stop import Interrupted


def exit_code(work: Callable[[], object], again: Callable[[], str] | None = None) -> int:
    """Does the work of a command.

    Args:
        work: what was asked for.
        again: the command line that continues it; None where nothing is continued.
    Returns:
        0; 1 after an error that the user can mend, whose message was printed; 130 if interrupted.
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
    return 0
