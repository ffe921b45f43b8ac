"""`corrupt`: any images, each with its own type, severity and seed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor

from .checks import (
    corruption_codes,
    definition,
    image_seeds,
    parameter_rows,
    severity_levels,
)
from .filters import corrupt_levels, takes_numbers_per_image
from .frost import FrostSource, choose_source
from .layouts import Images, as_batch
from .parameters import Row
from .random import Random
from .registry import CORRUPTIONS, Corruption

# One image of 224x224 at a time, or as many smaller ones: what a step computes then stays in a
# core's cache. A GPU, whose time is lost between small steps, takes as many as its memory bears.
_CHUNK_PIXELS = 224 * 224
_CHUNK_OF_A_GPU = 64


# Below this side no published table was meant, and its filters may reach beyond the image.
_SMALL = 32


@torch.no_grad()
def corrupt(
    images: Images,
    corruption: str | Sequence[str],
    severity: int | Sequence[int] | Tensor,
    *,
    seed: int = 0,
    seeds: int | Sequence[int] | Tensor | None = None,
    parameters: str | None = None,
    semantics: str = "imagenet_c",
    frost: FrostSource = "auto",
) -> Images:
    """Corrupt each image as ImageNet-C does; what comes in comes out.

        >>> import numpy as np
        >>> photo = np.full((300, 400, 3), 128, np.uint8)
        >>> corrupt(photo, "fog", 3).shape
        (300, 400, 3)

    y = trunc(255 clip(corruption(x / 255), 0, 1)). What an image becomes depends on its pixels,
    type, severity and seed, and on nothing else: not on its neighbours, their number or order.
    Nothing is drawn from global generators.

    Args:
        images: RGB or grey, of any height and width; uint8, or floating point in [0, 1], which is
            rounded to 8 bits first. A NumPy array (H, W, 3), (H, W), (B, H, W, 3) or (B, H, W, 1);
            a `PIL.Image` of mode RGB or L; a tensor (3, H, W), (1, H, W), (B, 3, H, W) or
            (B, 1, H, W). Grey is corrupted as RGB, and keeps its luma, or one channel of a noise.
        corruption: one of `CORRUPTIONS`, or one for each image.
        severity: 1..5, or one for each image.
        seed: a whole number of 32 bits; the image at position i of a batch gets the seed
            seed 2^32 + i.
        seeds: instead of it int64 (B,), one for each image; an int for a batch of one. The same
            seed draws different numbers for different types and severities.
        parameters: the name of a parameter set ("imagenet224", "tiny64", "cifar32"), or None for a
            choice by the shorter side: to 48 pixels "cifar32", to 128 "tiny64", else "imagenet224".
        semantics: "imagenet_c", or "imagecorruptions" for the package's variants; see `registry`.
        frost: which frost overlays: "photographs", "procedural", "auto", or a folder; see
            `frost_source`.

    Returns:
        The corrupted images, of the given type, shape, dtype, mode and device; floating point is
        grey levels / 255. No gradient passes.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape, length or range, or an image
            too small for a corruption.
        FileNotFoundError: frost photographs asked for and not there.

    Source: Hendrycks & Dietterich 2019, ImageNet-C.
    """
    levels, back = as_batch(images)
    batch, _, height, width = levels.shape
    codes = corruption_codes(corruption, batch)
    severities = severity_levels(severity, batch)
    keys = image_seeds(seed, seeds, batch)
    chosen = definition(semantics)
    rows = dict(parameter_rows(chosen, parameters, height, width))
    choose_source(frost, warn=False)
    # The one choice which is not a matter of severity.
    rows["frost"] = tuple((*each, frost) for each in rows["frost"])  # type: ignore

    mixing = _mixes_severities(levels.device)
    pixels = _CHUNK_PIXELS * (_CHUNK_OF_A_GPU if mixing else 1)
    chunk = max(1, pixels // max(1, height * width))
    groups = _groups(codes, severities, chosen.functions, mixing)
    # Group by group, so that each is a slice, which copies nothing.
    order = torch.tensor(list(chain(*groups.values())), dtype=torch.int64, device="cpu")
    sorted_before = torch.equal(order, torch.arange(batch, device="cpu"))
    if not sorted_before:
        levels, keys = levels[order.to(levels.device)], keys[order]
    result = torch.empty_like(levels, memory_format=torch.contiguous_format)
    start = 0
    for (name, level), members in groups.items():
        for some in (members[at : at + chunk] for at in range(0, len(members), chunk)):
            part = slice(start, start + len(some))
            each = level or [severities[at] for at in some]
            random = Random(keys[part], _domains(name, each), levels.device)
            given = _arguments(rows[name], each)
            with _reaching(name, level or severities[some[-1]], height, width):
                made = corrupt_levels(chosen.functions[name], levels[part], random, *given)
            result[part] = made
            start = part.stop
    if not sorted_before:
        result = result[order.argsort().to(result.device)]
    return back(result, [CORRUPTIONS[code] for code in codes])


@contextmanager
def _reaching(name: str, level: int, height: int, width: int) -> Iterator[None]:
    """Says of an error in a tiny image that it is one of size."""
    try:
        yield
    except (IndexError, RuntimeError, ValueError, ZeroDivisionError) as error:
        if min(height, width) >= _SMALL:
            raise
        raise ValueError(
            f"images: {height}x{width} pixels are too few for {name} at severity {level}, which "
            "reaches further; enlarge the images, or choose a smaller set with `parameters=`"
        ) from error


def _mixes_severities(device: torch.device) -> bool:
    """Whether the images of a type go together whatever their severities, where they can."""
    return device.type != "cpu"


def _groups(
    codes: list[int], severities: list[int], functions: Mapping[str, Corruption], mixing: bool
) -> dict[tuple[str, int | None], list[int]]:
    """Positions in the batch for each (type, severity) that occurs in it; None is any severity.

    Of any severity they stand by severity, so that equal arguments are neighbours.
    """
    groups: dict[tuple[str, int | None], list[int]] = {}
    positions = range(len(codes))
    for position in sorted(positions, key=severities.__getitem__) if mixing else positions:
        name, level = CORRUPTIONS[codes[position]], severities[position]
        mixed = mixing and takes_numbers_per_image(functions[name])
        groups.setdefault((name, None if mixed else level), []).append(position)
    return groups


def _domains(name: str, level: int | list[int]) -> int | list[int]:
    """The domain of a type's draws at a severity, or at that of each image."""
    if isinstance(level, list):
        return [zlib.crc32(f"{name}/{each}".encode()) for each in level]
    return zlib.crc32(f"{name}/{level}".encode())


def _arguments(rows: tuple[Row, ...], level: int | list[int]) -> Iterable[object]:
    """A corruption's arguments at a severity, or as `filters.Number`s at that of each image."""
    if isinstance(level, int):
        return rows[level - 1]
    columns = zip(*(rows[each - 1] for each in level), strict=True)
    return [
        torch.tensor(column, dtype=torch.float64, device="cpu").view(-1, 1, 1, 1)
        if isinstance(column[0], int | float)
        else column[0]
        for column in columns
    ]
