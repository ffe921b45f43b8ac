"""One image under every corruption: its pixels, and a sheet of them to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .batch import corrupt
from .registry import CORRUPTIONS, SEVERITIES

_GAP = 4  # pixels
Rows = Mapping[str, Sequence[np.ndarray]]
"""{name: images, uint8 (H, W, 3)}."""


def corrupted_rows(
    image: Tensor, seed: int, types: Iterable[str] = CORRUPTIONS, **options: Any
) -> Rows:
    """The image as it is ("clean"), then under each type at severities 1 to 5.

    Args:
        image: uint8 (3, H, W).
        seed: of all that is random.
        types: which corruptions.
        options: of `corrupt`.

    Raises:
        ValueError, TypeError, FileNotFoundError: as `corrupt`.
    """
    count = len(SEVERITIES)
    batch, seeds = (
        image.expand(count, -1, -1, -1).contiguous(),
        torch.full((count,), seed, device="cpu"),
    )
    found = {name: corrupt(batch, name, SEVERITIES, seeds=seeds, **options) for name in types}
    rows = {"clean": image[None], **found}
    return {name: list(row.permute(0, 2, 3, 1).cpu().numpy()) for name, row in rows.items()}


def sheet(blocks: Sequence[tuple[str, Rows]], *, scale: int = 1, across: int = 1) -> Image.Image:
    """Blocks side by side: each has a title, and below it the names and images of its rows.

    Args:
        blocks: (title, rows), of images of one size.
        scale: pixels of the sheet for a pixel of an image, each way.
        across: beside each other, parts of each block.
    """
    blocks = [part for title, rows in blocks for part in _parts(title, rows, across)]
    first = next(iter(blocks[0][1].values()))[0]
    height, width = (scale * side for side in first.shape[:2])
    points = max(12, height // 7)
    font = ImageFont.load_default(points)
    names = max(font.getlength(name) for _, rows in blocks for name in rows)
    margin, line = int(names) + 2 * _GAP, int(1.6 * points) + _GAP
    wide = margin + len(SEVERITIES) * (width + _GAP) + 4 * _GAP
    tall = line + max(len(rows) for _, rows in blocks) * (height + _GAP)
    page = Image.new("RGB", (len(blocks) * wide, tall), "white")
    draw = ImageDraw.Draw(page)
    for block, (title, rows) in enumerate(blocks):
        left = block * wide + margin
        draw.text((left, _GAP), title, "black", font)
        for number, (name, images) in enumerate(rows.items()):
            top = line + number * (height + _GAP)
            draw.text((left - margin + _GAP, top), name.replace("_", " "), "black", font)
            for column, pixels in enumerate(images):
                # Nearest neighbour, for a reader must see the pixels that the network sees.
                cell = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
                page.paste(cell, (left + column * (width + _GAP), top))
    return page


def _parts(title: str, rows: Rows, count: int) -> list[tuple[str, Rows]]:
    """A block's rows in that many blocks, as even as can be, under one title."""
    names = list(rows)
    each = -(-len(names) // count)
    parts = [names[start : start + each] for start in range(0, len(names), each)]
    return [
        ("" if at else title, {name: rows[name] for name in part}) for at, part in enumerate(parts)
    ]
