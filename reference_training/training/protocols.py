"""What the training loop needs of the world around it."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from reference_training.data.batch import Batch

Observer = Callable[[dict[str, Any], dict[str, float]], None]
"""Gets each row of metrics.jsonl, and the seconds of each part of its iterations."""


class Source(Protocol):
    """Where the batches come from."""

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """This rank's part of the batches of the iterations first, ..., last − 1."""

    def describe(self, iteration: int) -> dict[str, Any]:
        """What the whole batch of an iteration consisted of, JSON-able."""

    def check(self) -> None:
        """Called on every rank at once, now and then; raises RunError to end the run."""


class Flag(Protocol):
    """Like `threading.Event`."""

    def is_set(self) -> bool:
        """Whether somebody asked."""


class Link(Protocol):
    """Whoever started the training: counts iterations, and may ask for an early, saved end."""

    @property
    def stop(self) -> Flag:
        """Whether to stop."""

    def advance(self, iterations: int = 1) -> None:
        """Counts iterations just done."""

    def skip(self, iterations: int) -> None:
        """Counts iterations that an earlier start had done."""
