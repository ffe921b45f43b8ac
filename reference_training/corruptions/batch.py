"""`corrupt`: a batch of images, each with its own type, severity and seed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .checks import (
    corruption_codes,
    definition,
    image_levels,
    image_seeds,
    parameter_rows,
    severity_levels,
)
from .filters import corrupt_levels
from .frost import FrostSource, choose_source
from .random import Random
from .registry import CORRUPTIONS

# One image of 224x224 at a time, or as many smaller ones: what a step computes then stays in a
# core's cache. A GPU, whose time is lost between small steps, takes all images at once.
_CHUNK_PIXELS = 224 * 224


@torch.no_grad()
def corrupt(
    images: Tensor,
    corruption: str | Sequence[str],
    severity: int | Sequence[int] | Tensor,
    *,
    seeds: int | Sequence[int] | Tensor,
    parameters: str | None = None,
    semantics: str = "imagenet_c",
    frost: FrostSource = "auto",
) -> Tensor:
    """Corrupt each image as ImageNet-C does.

    y = trunc(255 clip(corruption(x / 255), 0, 1)). What an image becomes depends on its pixels,
    type, severity and seed, and on nothing else: not on its neighbours, their number or order.
    Nothing is drawn from torch's global generators.

    Args:
        images: (B, 3, H, W) RGB; uint8, or floating point in [0, 1], rounded to 8 bits first.
        corruption: one of `CORRUPTIONS`, or one for each image.
        severity: 1..5, or one for each image.
        seeds: int64 (B,), one for each image; an int for a batch of one. The same seed draws
            different numbers for different types and severities.
        parameters: the name of a parameter set ("imagenet224", "tiny64", "cifar32"), or None for
            the one published for the images' size.
        semantics: "imagenet_c", or "imagecorruptions" for the package's variants; see `registry`.
        frost: which frost overlays: "photographs", "procedural", "auto", or a folder; see
            `frost_source`.

    Returns:
        (B, 3, H, W) on the images' device: uint8, or for floating point grey levels / 255 in the
        images' dtype.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape, length or range.
        FileNotFoundError: frost photographs asked for and not there.

    Source: Hendrycks & Dietterich 2019, ImageNet-C.
    """
    levels = image_levels(images)
    batch, _, height, width = levels.shape
    codes = corruption_codes(corruption, batch)
    severities = severity_levels(severity, batch)
    keys = image_seeds(seeds, batch)
    chosen = definition(semantics)
    rows = dict(parameter_rows(chosen, parameters, height, width))
    choose_source(frost, warn=False)
    # The one choice which is not a matter of severity.
    rows["frost"] = tuple((*row, frost) for row in rows["frost"])  # type: ignore[assignment]

    result = torch.empty_like(levels, memory_format=torch.contiguous_format)
    few = max(1, _CHUNK_PIXELS // max(1, height * width))
    chunk = few if levels.device.type == "cpu" else batch
    for (code, level), members in _groups(codes, severities).items():
        name = CORRUPTIONS[code]
        domain = zlib.crc32(f"{name}/{level}".encode())
        for part in _parts(members, chunk):
            random = Random(keys[part], domain, levels.device)
            made = corrupt_levels(
                chosen.functions[name], levels[part], random, *rows[name][level - 1]
            )
            result[part] = made.to(torch.uint8)
    if images.dtype == torch.uint8:
        return result
    computed = torch.float64 if images.dtype == torch.float64 else torch.float32
    return (result.to(computed) / 255).to(images.dtype)


def _groups(codes: list[int], severities: list[int]) -> dict[tuple[int, int], list[int]]:
    """Positions in the batch for each (type, severity) that occurs in it."""
    groups: dict[tuple[int, int], list[int]] = {}
    for position, pair in enumerate(zip(codes, severities, strict=True)):
        groups.setdefault(pair, []).append(position)
    return groups


def _parts(members: list[int], chunk: int) -> Iterator[slice | list[int]]:
    """Indices of at most `chunk` members each; slices, which copy nothing, where they can be."""
    for start in range(0, len(members), chunk):
        part = members[start : start + chunk]
        whole = part[-1] - part[0] + 1 == len(part)
        yield slice(part[0], part[-1] + 1) if whole else part
