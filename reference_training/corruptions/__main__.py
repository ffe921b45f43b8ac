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

import numpy as np
import torch
import tyro
from PIL import Image, UnidentifiedImageError
from sklearn.datasets import load_sample_image
from tqdm import tqdm

from reference_training.corruptions import CORRUPTIONS, SEVERITIES, frost_source
from reference_training.corruptions.sheet import Rows, corrupted_rows, sheet
from reference_training.runtime.errors import RunError


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


def public_rows(image: np.ndarray, seed: int) -> Rows:
    """What the public package makes of an image, uint8 (H, W, 3)."""
    package = importlib.import_module("imagecorruptions")
    np.random.seed(seed)
    corrupted = {
        name: [package.corrupt(image, severity, name) for severity in SEVERITIES]
        for name in tqdm(CORRUPTIONS, desc="public", unit="type")
    }
    return {"clean": [image], **corrupted}


def execute(options: Options) -> None:
    """Makes the sheet and writes it, saying which overlays of frost were used.

    Raises:
        RunError: an option is wrong.
    """
    clean = load_square(options.image, options.size)
    image = torch.from_numpy(clean.copy()).permute(2, 0, 1)
    try:
        ours = corrupted_rows(
            image,
            options.seed,
            tqdm(CORRUPTIONS, desc="ours", unit="type"),
            parameters=options.parameters,
            semantics=options.semantics,
            frost=options.frost,
        )
    except (ValueError, FileNotFoundError) as error:
        raise RunError(f"--{error}") from error
    blocks = [(f"ours, severity 1 to 5 ({options.semantics})", ours)]
    installed = importlib.util.find_spec("imagecorruptions") is not None
    comparable = options.parameters == "imagenet224" or options.size == 224
    if options.public and installed and comparable:
        blocks.append(("the public package imagecorruptions", public_rows(clean, options.seed)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(blocks).save(options.out, "PNG", optimize=True)
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
