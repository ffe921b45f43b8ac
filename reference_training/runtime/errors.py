"""The error that the command line prints as one message instead of a traceback."""

from collections.abc import Collection
from operator import attrgetter
from typing import Any


class RunError(Exception):
    """What went wrong, why, and how to go on. Nothing already computed is lost."""

    told = False
    """Whether rank 0 raises, and so prints, the same error."""


def check_at_least(least: int, run: Any, *options: str) -> None:
    """Raises RunError for numbers that are too small.

    Args:
        least: what each must be; None passes.
        run: the options.
        options: names of the run's, as "recipe.batch_size".
    """
    for option in options:
        value = attrgetter(option)(run)
        if value is not None and value < least:
            name = option.replace("_", "-")
            raise RunError(f"--{name} is {value}, but must be at least {least}.")


def check_known(option: str, value: Any, known: Collection[str]) -> None:
    """Raises RunError where the value of an option is none of those known."""
    if value not in known:
        raise RunError(f"{option} is {value!r}; use one of {', '.join(known)}.")
