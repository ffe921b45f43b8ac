"""A sheet of all corruptions: `python -m reference_training.corruptions --out sheet.png`.

One image under the 19 types at the 5 severities; where the public package `imagecorruptions` is
installed, what it makes of the image stands beside it, with random numbers of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError
from sklearn.datasets import load_sample_image
from tqdm import tqdm

from reference_training.corruptions import CORRUPTIONS, SEVERITIES, corrupt, frost_source
from reference_training.runtime.errors import RunError

_GAP = 4
Strip = list[np.ndarray]


@dataclass(frozen=True)
class Options:
    """What the sheet shows."""

    out: Path = Path("corruptions.png")
    """The PNG to write."""
    image: Path | None = None
    """A picture; None is a photograph that scikit-learn carries."""
    size: int = 224
    """The side in pixels to which the picture's central square is resized first."""
    parameters: str | None = None
    """imagenet224, tiny64 or cifar32; None is the set published for the size."""
    semantics: str = "imagenet_c"
    """imagenet_c, or imagecorruptions for the package's variants."""
    frost: str = "auto"
    """photographs, procedural, auto, or a folder with ImageNet-C's overlays."""
    seed: int = 0
    """Of all that is random."""
    public: bool = True
    """Whether the public package stands beside, where it is installed; for 224's parameters only,
    as it has no others."""


def load_square(path: Path | None, size: int) -> np.ndarray:
    """The central square of a picture, uint8 (size, size, 3).

    Raises:
        RunError: the file is no picture, or the size no size.
    """
    if size < 32:
        raise RunError(f"--size is {size}, but must be at least 32.")
    try:
        picture = Image.fromarray(load_sample_image("china.jpg")) if path is None else None
        picture = Image.open(str(path)).convert("RGB") if picture is None else picture
    except (OSError, UnidentifiedImageError) as error:
        raise RunError(f"--image {path}: {error}") from error
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box))


def our_strips(image: np.ndarray, options: Options) -> dict[str, Strip]:
    """For each type its five severities, uint8 (H, W, 3).

    Raises:
        RunError: an option is wrong.
    """
    batch = torch.from_numpy(image.copy()).permute(2, 0, 1).expand(len(SEVERITIES), -1, -1, -1)
    seeds = torch.full((len(SEVERITIES),), options.seed)
    chosen: dict[str, Any] = {
        "parameters": options.parameters,
        "semantics": options.semantics,
        "frost": options.frost,
    }
    try:
        return {
            name: list(
                corrupt(batch.contiguous(), name, SEVERITIES, seeds=seeds, **chosen)
                .permute(0, 2, 3, 1)
                .numpy()
            )
            for name in tqdm(CORRUPTIONS, desc="ours", unit="type")
        }
    except (ValueError, FileNotFoundError) as error:
        raise RunError(f"--{error}") from error


def public_strips(image: np.ndarray, seed: int) -> dict[str, Strip]:
    """The same from the public package."""
    package = importlib.import_module("imagecorruptions")
    np.random.seed(seed)
    return {
        name: [package.corrupt(image, severity, name) for severity in SEVERITIES]
        for name in tqdm(CORRUPTIONS, desc="public", unit="type")
    }


def sheet(clean: np.ndarray, blocks: dict[str, dict[str, Strip]]) -> Image.Image:
    """All strips, a row for each type and a block of columns for each title.

    Args:
        clean: uint8 (H, W, 3), shown first.
        blocks: for each title its strips.

    Returns:
        The picture.
    """
    height, width = clean.shape[:2]
    points = max(10, height // 12)
    font = ImageFont.load_default(points)
    names = max(font.getlength(name) for name in CORRUPTIONS)
    margin, line = int(names) + 2 * _GAP, int(1.6 * points) + _GAP
    wide = len(SEVERITIES) * (width + _GAP) + 4 * _GAP
    tall = line + (len(CORRUPTIONS) + 1) * (height + _GAP)
    page = Image.new("RGB", (margin + len(blocks) * wide, tall), "white")
    draw = ImageDraw.Draw(page)
    page.paste(Image.fromarray(clean), (margin, line))
    draw.text((_GAP, line), "clean", "black", font)
    for column, (title, strips) in enumerate(blocks.items()):
        left = margin + column * wide
        draw.text((left, _GAP), title, "black", font)
        for row, name in enumerate(CORRUPTIONS, start=1):
            top = line + row * (height + _GAP)
            draw.text((_GAP, top), name, "black", font)
            for number, pixels in enumerate(strips[name]):
                page.paste(Image.fromarray(pixels), (left + number * (width + _GAP), top))
    return page


def execute(options: Options) -> None:
    """Makes the sheet and writes it, saying which overlays of frost were used.

    Raises:
        RunError: an option is wrong.
    """
    clean = load_square(options.image, options.size)
    blocks = {f"ours, severity 1 to 5 ({options.semantics})": our_strips(clean, options)}
    installed = importlib.util.find_spec("imagecorruptions") is not None
    comparable = options.parameters == "imagenet224" or options.size == 224
    if options.public and installed and comparable:
        blocks["the public package imagecorruptions"] = public_strips(clean, options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(clean, blocks).save(options.out, "PNG", optimize=True)
    print(f"{options.out}; frost: {frost_source(options.frost)}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    try:
        execute(
            tyro.cli(
                Options,
                prog="python -m reference_training.corruptions",
                args=arguments,
                description=__doc__,
            )
        )
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
