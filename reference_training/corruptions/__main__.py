"""A sheet of all corruptions: `python -m reference_training.corruptions --out sheet.png`.

One image under the 19 types at the 5 severities; where the public package `imagecorruptions` is
installed, what it makes of the image stands beside it, with random numbers of its own.
"""

import importlib
import importlib.util
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image, UnidentifiedImageError
from sklearn.datasets import load_sample_image
from tqdm import tqdm
from tyro.conf import OmitArgPrefixes

from reference_training.corruptions import CORRUPTIONS, SEVERITIES, CorruptionOptions, frost_source
from reference_training.corruptions.sheet import Rows, corrupted_rows, sheet
from reference_training.runtime.command import exit_code
from reference_training.runtime.errors import RunError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
"""What Pillow may take a picture for; for others, as EPS, it would start a program."""


def load_square(path: Path | None, size: int) -> np.ndarray:
    """The central square of a picture, uint8 (size, size, 3).

    Raises:
        RunError: the file is no picture, or the size no size.
    """
    if size < 32:
        raise RunError(f"--size is {size}, but must be at least 32.")
    try:
        if path is None:
            picture = Image.fromarray(load_sample_image("china.jpg"))
        else:
            picture = Image.open(path, formats=FORMATS).convert("RGB")
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
        for name in tqdm(CORRUPTIONS, desc="public")
    }
    return {"clean": [image], **corrupted}


def execute(
    options: OmitArgPrefixes[CorruptionOptions],
    out: Path = Path("corruptions.png"),
    image: Path | None = None,
    size: int = 224,
    seed: int = 0,
    public: bool = True,
) -> None:
    """Makes the sheet and writes it, saying which overlays of frost were used.

    Args:
        options: Of the corruptions.
        out: The PNG to write.
        image: A picture; None is a photograph that scikit-learn carries.
        size: The side in pixels to which the picture's central square is resized first.
        seed: Of all that is random.
        public: Whether the public package stands beside, where it is installed; for 224's
            parameters only, as it has no others.

    Raises:
        RunError: an option is wrong.
    """
    if out.suffix.lower() != ".png" or out.is_dir():
        raise RunError(f"--out is {out}, but must be the name of a PNG file, as sheet.png.")
    clean = load_square(image, size)
    pixels, types = torch.from_numpy(clean.copy()).permute(2, 0, 1), tqdm(CORRUPTIONS, desc="ours")
    try:
        ours = corrupted_rows(pixels, seed, types, **asdict(options))
    except (ValueError, FileNotFoundError) as error:
        raise RunError(f"--{error}") from error
    blocks = [(f"ours, severity 1 to 5 ({options.semantics})", ours)]
    installed = importlib.util.find_spec("imagecorruptions") is not None
    comparable = options.parameters == "imagenet224" or size == 224
    if public and installed and comparable:
        blocks.append(("the public package imagecorruptions", public_rows(clean, seed)))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet(blocks).save(out, "PNG", optimize=True)
    print(f"{out}; frost: {frost_source(options.frost)}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    prog = "python -m reference_training.corruptions"
    return exit_code(lambda: tyro.cli(execute, prog=prog, args=arguments, description=__doc__))


if __name__ == "__main__":
    sys.exit(main())
