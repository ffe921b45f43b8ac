"""What all commands do alike: one message instead of a traceback, and an exit code."""

import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from reference_training.runtime.errors import RunError
from reference_training.runtime.ranks import LAUNCHER, is_main
from reference_training.runtime.stop import Interrupted

READER_LEFT = 141
"""The exit code that a shell gives a program which SIGPIPE ended."""


def exit_code(work: Callable[[], int | None], again: Callable[[], str] | None = None) -> int:
    """Does the work of a command.

    Args:
        work: what was asked for; returns a code where other processes did it.
        again: the command line that continues it; None where nothing is continued.
    Returns:
        0, or what `work` returned; 1 after an error that the user can mend, whose message was
        printed; 130 if interrupted; 141 if the reader of what it prints left before its end, as
        `head` does.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without σ or ± gets a ? for it
            stream.reconfigure(errors="replace")
    try:
        return work() or 0
    except (RunError, ImportError) as error:
        message, code = f"error: {error}", 1
    except (Interrupted, KeyboardInterrupt) as error:
        end = f", everything is saved; continue with: {again()}" if again else ""
        message, code = f"\n{str(error) or 'interrupted'}{end}", 130
    except BrokenPipeError:
        if not _reader_left("\n"):  # some other pipe: a bug
            raise
        return READER_LEFT
    finally:
        _reader_left()
    if is_main():  # `ranks.join` has told what is another rank's alone
        print(message, file=sys.stderr)
    _tell_launcher(message.strip())
    return code


def _tell_launcher(message: str) -> None:
    """Puts a message where torchrun's report, the last lines of its output, takes it from.

    torchrun prints a traceback of its own for every code but 0, which no rank can prevent; see
    `launch` for what does not.
    """
    if LAUNCHER in os.environ:
        content = {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}
        Path(os.environ[LAUNCHER]).write_text(json.dumps({"message": content}), encoding="utf-8")


def _reader_left(more: str = "") -> bool:
    """Whether nobody reads standard output any more; what is left of it then goes nowhere."""
    try:
        print(end=more, flush=True)
    except BrokenPipeError:
        # Python would try, and complain, once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
