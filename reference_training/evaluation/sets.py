"""Which sets an evaluation has, and which images of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from torch import Tensor

from reference_training.corruptions import CORRUPTIONS, SEEN, SEVERITIES, UNSEEN
from reference_training.data.images import fixed_order
from reference_training.data.samples import CLEAN, EvaluationSet
from reference_training.runtime.errors import RunError

GROUPS = {"all": CORRUPTIONS, "seen": SEEN, "unseen": UNSEEN}
SUBSET = 500
"""Images of Table 4's second column, a test-time adaptation on few images."""
SETS: tuple[EvaluationSet, ...] = (
    (CLEAN, 0),
    *((corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES),
)
"""The sets of a run's evaluation."""


def select_corruptions(names: Sequence[str]) -> tuple[str, ...]:
    """The corruptions that names and groups' names stand for, in ImageNet-C's order.

    Raises:
        RunError: an unknown name, or none.
    """
    wanted: set[str] = set()
    for name in names:
        members = GROUPS.get(name, (name,))
        if not set(members) <= set(CORRUPTIONS):
            near = difflib.get_close_matches(name, CORRUPTIONS, n=1)
            guess = f"did you mean {near[0]!r}? " if near else ""
            raise RunError(
                f"unknown corruption {name!r}; {guess}known are {', '.join(CORRUPTIONS)}, and "
                f"the groups {', '.join(GROUPS)}."
            )
        wanted |= set(members)
    if not wanted:
        raise RunError("no corruption named; give some --corruptions.")
    return tuple(name for name in CORRUPTIONS if name in wanted)


def small_subset(count: int) -> Tensor:
    """A fixed random tenth of so many positions, at most `SUBSET`: Table 4's second column."""
    return fixed_order(count)[: min(SUBSET, max(1, count // 10))]
