"""`corrupt`: a batch of images, each with its own type, severity and seed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import corruption_codes, image_levels, image_seeds, parameter_set, severity_levels
from .filters import truncate_levels
from .frost import choose_source
from .random import Random
from .registry import CORRUPTIONS, REGISTRY, SEVERITIES


@torch.no_grad()
def corrupt(
    images: Tensor,
    corruption: str | Sequence[str],
    severity: int | Sequence[int] | Tensor,
    *,
    seeds: int | Sequence[int] | Tensor,
    parameters: str | None = None,
    frost: str = "auto",
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
        parameters: the name of a parameter set ("cifar32"), or None for the one published for the
            images' size.
        frost: which frost overlays: "photographs", "procedural", or "auto"; see `frost_source`.

    Returns:
        (B, 3, H, W) on the images' device: uint8, or for floating point grey levels / 255 in the
        images' dtype.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape, length or range.
        FileNotFoundError: frost photographs asked for and not installed.

    Source: Hendrycks & Dietterich 2019, ImageNet-C.
    """
    levels = image_levels(images)
    batch, _, height, width = levels.shape
    codes = corruption_codes(corruption, batch)
    severities = severity_levels(severity, batch)
    keys = image_seeds(seeds, batch, levels.device)
    rows = dict(parameter_set(parameters, height, width).rows)
    choose_source(frost, warn=False)
    # The one choice which is not a matter of severity.
    rows["frost"] = tuple((*row, frost) for row in rows["frost"])  # type: ignore[assignment]

    result = torch.empty_like(levels)
    for code, level, members in _groups(codes, severities, levels.device):
        name = CORRUPTIONS[code]
        random = Random(keys[members], domain=zlib.crc32(f"{name}/{level}".encode()))
        clean = levels[members].to(torch.float64) / 255
        corrupted = REGISTRY[name](clean, random, *rows[name][level - 1])
        result[members] = truncate_levels(corrupted).to(torch.uint8)
    if images.dtype == torch.uint8:
        return result
    return (result.to(torch.float64) / 255).to(images.dtype)


def _groups(
    codes: list[int], severities: list[int], device: torch.device
) -> list[tuple[int, int, Tensor]]:
    """Positions in the batch, int64, for each (type, severity) that occurs in it."""
    pairs = torch.tensor([codes, severities], dtype=torch.int64)
    pairs = pairs[0] * len(SEVERITIES) + pairs[1] - 1
    kinds, counts = torch.unique(pairs, return_counts=True)
    positions = torch.argsort(pairs, stable=True).to(device).split(counts.tolist())
    return [
        (kind // len(SEVERITIES), kind % len(SEVERITIES) + 1, members)
        for kind, members in zip(kinds.tolist(), positions, strict=True)
    ]
