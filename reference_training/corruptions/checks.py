"""The arguments of `corrupt`, checked: each message says what came, what was due, what to do."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from .parameters import Rows
from .registry import CORRUPTIONS, SEMANTICS, SEVERITIES, Semantics


def corruption_codes(corruption: str | Sequence[str], batch: int) -> list[int]:
    """The position in `CORRUPTIONS` of each image's type.

    Args:
        corruption: one name, or one for each image.
        batch: how many images.

    Returns:
        `batch` positions.

    Raises:
        TypeError: not names.
        ValueError: an unknown name, or another number of names.
    """
    names = [corruption] * batch if isinstance(corruption, str) else list(corruption)
    code = {name: position for position, name in enumerate(CORRUPTIONS)}
    for name in {corruption} if isinstance(corruption, str) else set(names):
        if not isinstance(name, str):
            raise TypeError(f"corruption: expected names, got {type(name).__name__}")
        if name not in code:
            near = difflib.get_close_matches(name, CORRUPTIONS, n=1)
            guess = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"corruption: {name!r} is unknown; {guess}known are {', '.join(CORRUPTIONS)}"
            )
    _same_length("corruption", len(names), batch)
    return [code[name] for name in names]


def severity_levels(severity: int | Sequence[int] | Tensor, batch: int) -> list[int]:
    """Each image's severity.

    Args:
        severity: one whole number, or one for each image.
        batch: how many images.

    Returns:
        `batch` numbers 1..5.

    Raises:
        TypeError: not whole numbers.
        ValueError: outside 1..5, or another number of severities.
    """
    given = severity.tolist() if isinstance(severity, Tensor) else severity
    each = list(given) if isinstance(given, Sequence) else [given] * batch
    try:
        levels = [operator.index(level) for level in each]
    except TypeError as error:
        raise TypeError(f"severity: expected whole numbers 1..5, got {severity!r}") from error
    for level in set(levels) - set(SEVERITIES):
        raise ValueError(f"severity: expected 1, 2, 3, 4 or 5, got {level}")
    _same_length("severity", len(levels), batch)
    return levels


def image_seeds(seed: int, seeds: int | Sequence[int] | Tensor | None, batch: int) -> Tensor:
    """One seed for each image.

    Args:
        seed: of all, from which `position_seeds` makes the others.
        seeds: instead of it: integers, one for each image; a single int for a batch of one.
        batch: how many images.

    Returns:
        int64 (B,) on the CPU, where each image's few steering numbers are drawn.

    Raises:
        TypeError: not integers.
        ValueError: `seed` out of range, or another number of seeds.
    """
    if seeds is None:
        return position_seeds(seed, torch.arange(batch, device="cpu"))
    if seed != 0:
        raise ValueError("seeds: takes the place of seed; give one of them")
    keys = torch.as_tensor(seeds, device="cpu")
    if batch == 0 and keys.numel() == 0:
        return torch.zeros(0, dtype=torch.int64, device="cpu")
    if keys.is_floating_point() or keys.is_complex() or keys.dtype == torch.bool:
        raise TypeError(f"seeds: expected integers (int64), got {keys.dtype}")
    if keys.ndim > 1:
        raise ValueError(f"seeds: expected shape ({batch},), got {tuple(keys.shape)}")
    if keys.ndim == 0 and batch != 1:
        raise ValueError(
            f"seeds: expected one for each image of the batch ({batch}), got one number; "
            "`seed=` makes one for each image of it"
        )
    _same_length("seeds", keys.numel(), batch)
    return keys.reshape(batch).to(torch.int64)


def position_seeds(seed: int, positions: Tensor) -> Tensor:
    """Each image's seed, by its place: seed 2^32 + position, int64 as `positions`.

    Raises:
        TypeError: `seed` is no whole number.
        ValueError: it does not fit into 32 bits.
    """
    try:
        number = operator.index(seed)
    except TypeError as error:
        raise TypeError(f"seed: expected a whole number, got {seed!r}") from error
    if not -(2**31) <= number < 2**31:
        raise ValueError(
            f"seed: expected -2^31 to 2^31 - 1, got {number}; `seeds=` takes 64 bits, one number "
            "for each image"
        )
    return positions + (number << 32)


def definition(name: str) -> Semantics:
    """The public definition to follow.

    Args:
        name: a key of `SEMANTICS`.

    Returns:
        Its functions and parameter sets.

    Raises:
        ValueError: an unknown name.
    """
    if name not in SEMANTICS:
        known = ", ".join(repr(key) for key in SEMANTICS)
        raise ValueError(f"semantics: {name!r} is unknown; known are {known}")
    return SEMANTICS[name]


def parameter_rows(semantics: Semantics, name: str | None, height: int, width: int) -> Rows:
    """The severities to use: those of a set by name, else by the shorter side.

    Args:
        semantics: the definition, which has its own sets.
        name: of one of its sets, or None for the first that reaches to the shorter side.
        height, width: of the images, pixels.

    Returns:
        The set's five rows for each type.

    Raises:
        ValueError: an unknown name.
    """
    sets = semantics.parameter_sets
    if name is None:
        shorter = min(height, width)
        return next(each.rows for each in sets.values() if shorter <= each.up_to)
    if name not in sets:
        known = ", ".join(f"{key!r} ({each.side}x{each.side})" for key, each in sets.items())
        raise ValueError(f"parameters: {name!r} is unknown; known here are {known}")
    return sets[name].rows


def _same_length(argument: str, given: int, batch: int) -> None:
    if given != batch:
        raise ValueError(
            f"{argument}: expected one for each image of the batch ({batch}), got {given}"
        )
