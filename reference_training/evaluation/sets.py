"""Which sets an evaluation has, and which images of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from reference_training.corruptions import CORRUPTIONS, SEEN, SEVERITIES, UNSEEN
from reference_training.data.samples import CLEAN, EvaluationSet
from reference_training.runtime.errors import RunError

GROUPS = {"all": CORRUPTIONS, "seen": SEEN, "unseen": UNSEEN}
SETS: tuple[EvaluationSet, ...] = (
    (CLEAN, 0),
    *((corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES),
)
"""The sets of a run's evaluation."""


def chosen_corruptions(names: Sequence[str]) -> tuple[str, ...]:
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


def subset_positions(labels: Tensor, count: int) -> Tensor:
    """The positions of a subset that is the same everywhere and balanced over the classes.

    Of the images ordered by class (those of a class by position), it takes the ones at
    ⌊(i + ½)·N/count⌋, so each class has its share to within one image, from all over the class.

    Args:
        labels: int64 (N,).
        count: how many.

    Returns:
        int64 (count,), ascending.

    Raises:
        RunError: not from 1 to N.
    """
    total = len(labels)
    if not 1 <= count <= total:
        raise RunError(f"--subset is {count}, but must be from 1 to {total}, the images there are.")
    order = labels.argsort(stable=True)
    return order[(2 * torch.arange(count) + 1) * total // (2 * count)].sort().values
