"""Which sets an evaluation has, and which images of them."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from reference_training.corruptions import CORRUPTIONS, GROUPS, SEVERITIES
from reference_training.data.images import balanced
from reference_training.data.samples import CLEAN, EvaluationSet, Labelled
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import reading
from reference_training.runtime.image_files import some

SUBSET, DRAWS = 500, 5
"""Images of Table 4's second column, an adaptation to few images, and how often they are drawn."""
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


def sets_of(data: Labelled, corruptions: Sequence[str] = ("all",)) -> list[EvaluationSet]:
    """All sets of an evaluation: clean images, and each corruption at each severity.

    Raises:
        RunError: as `select_corruptions`.
    """
    names = select_corruptions(corruptions)
    clean: list[EvaluationSet] = [(name, 0) for name in data.clean_sets]
    return clean + [(name, severity) for name in names for severity in SEVERITIES]


def few(count: int) -> int:
    """How many images Table 4's second column has of so many: a tenth, at most `SUBSET`."""
    return min(SUBSET, max(1, count // 10))


def drawn(count: int, size: int, draw: int) -> Tensor:
    """So many of the positions 0, ..., count − 1, at random, the same for a draw everywhere."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(draw))[:size]


def choose(
    data: Labelled,
    *,
    subset: int | None = None,
    draw: int | None = None,
    image_list: Path | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Which of the images are evaluated, and what the result says of that.

    Args:
        data: the images.
        subset: so many, balanced over the classes; by default all.
        draw: so many at random instead, by this seed.
        image_list: those that a text file names, a line each, in its order: as n01440764/x.JPEG,
            or by their file names alone.

    Returns:
        Positions int64 (n,), and facts as JSON.

    Raises:
        RunError: there are not so many images, or the list names none, one twice or unknown ones.
    """
    total = len(data.labels)
    if image_list is not None:
        if subset is not None:
            raise RunError("--subset and --image-list both say which images; give one of them.")
        positions = _listed(image_list, data.files)
        digest = hashlib.sha256(positions.numpy().tobytes()).hexdigest()
        listed = {"image_list": image_list.name, "image_list_sha256": digest}
        return positions, {"subset": len(positions), **listed}
    if subset is not None and not 1 <= subset <= total:
        raise RunError(
            f"--subset is {subset}, but must be from 1 to {total}, the images there are."
        )
    size = total if subset is None else subset
    if draw is None:
        return balanced(data.labels, size), {"subset": subset}
    return drawn(total, size, draw), {"subset": size, "draw": draw}


def _listed(path: Path, files: Sequence[str]) -> Tensor:
    places = {file: place for place, file in enumerate(files)}
    bare = {PurePosixPath(file).name: file for file in files}
    with reading(path, "is no list of images", "Give a text file with a path on each line"):
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    found: list[str] = []
    unknown: list[str] = []
    for line in filter(None, lines):
        other = bare.get(PurePosixPath(line).name, "")
        if line not in places and len(bare) == len(files) and not ("/" in line and "/" in other):
            line = other or line  # one of the two is without a class folder
        (found if line in places else unknown).append(line)
    if unknown or not found or len(set(found)) < len(found):
        what = f"names {some(unknown)}, not among the images" if unknown else "names none"
        raise RunError(
            f"{path} {what if unknown or not found else 'names an image twice'}; it must have the "
            f"paths of some of the {len(files)} image files below the data's folder, each once."
        )
    return torch.tensor([places[line] for line in found])
