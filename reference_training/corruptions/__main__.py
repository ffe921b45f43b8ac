"""Two commands: a sheet of all corruptions to look at, and a folder of images corrupted.

`python -m reference_training.corruptions sheet --out sheet.png` (the word may be left out): one
image under the 19 types at the 5 severities; where the public package `imagecorruptions` is
installed, what it makes of the image stands beside it, with random numbers of its own.

`python -m reference_training.corruptions apply photos photos-C --jpeg85`: every image of a folder
under the types at the severities, in ImageNet-C's layout. Given again after a kill, it continues.
"""

import importlib
import importlib.util
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from tyro.conf import OmitArgPrefixes

from reference_training.corruptions import CORRUPTIONS, SEVERITIES, CorruptionOptions, frost_source
from reference_training.corruptions.apply import Application, apply
from reference_training.corruptions.sheet import Rows, corrupted_rows, sheet
from reference_training.runtime.command import exit_code
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import reading
from reference_training.runtime.image_files import open_rgb
from reference_training.runtime.workers import bar


def load_square(path: Path | None, size: int) -> np.ndarray:
    """The central square of a picture, uint8 (size, size, 3).

    Raises:
        RunError: the file is no picture, or the size no size.
    """
    if size < 32:
        raise RunError(f"--size is {size}, but must be at least 32.")
    if path is None:
        sklearn = importlib.import_module("sklearn.datasets")  # this picture alone needs it
        picture = Image.fromarray(sklearn.load_sample_image("china.jpg"))
    else:
        with reading(f"--image {path}", "cannot be read", "Give another picture"):
            picture = open_rgb(path)
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
        for name in bar(len(CORRUPTIONS), "type", "public", CORRUPTIONS)
    }
    return {"clean": [image], **corrupted}


def execute(
    options: OmitArgPrefixes[CorruptionOptions],
    out: Path = Path("corruptions.png"),
    image: Path | None = None,
    size: int = 224,
    seed: int = 0,
    public: bool = True,
    across: int = 1,
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
        across: In how many parts, side by side, the types are shown.

    Raises:
        RunError: an option is wrong.
    """
    if out.suffix.lower() != ".png" or out.is_dir():
        raise RunError(f"--out is {out}, but must be the name of a PNG file, as sheet.png.")
    if across < 1:
        raise RunError(f"--across is {across}, but must be at least 1.")
    clean = load_square(image, size)
    pixels = torch.from_numpy(clean.copy()).permute(2, 0, 1)
    types = bar(len(CORRUPTIONS), "type", "ours", CORRUPTIONS)
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
    sheet(blocks, across=across).save(out, "PNG", optimize=True)
    print(f"{out}; frost: {frost_source(options.frost)}")


def execute_apply(given: OmitArgPrefixes[Application]) -> None:
    """Corrupts a folder of images, in ImageNet-C's layout."""
    print(f"{apply(given)} files written to {given.out}")


COMMANDS: dict[str, Callable[..., None]] = {"sheet": execute, "apply": execute_apply}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    named = bool(given) and given[0] in COMMANDS
    command, options = (given[0], given[1:]) if named else ("sheet", given)
    prog = f"python -m reference_training.corruptions {command}"

    def work() -> None:
        tyro.cli(COMMANDS[command], prog=prog, args=options, description=__doc__)

    return exit_code(work, lambda: shlex.join([*prog.split(), *options]))


if __name__ == "__main__":
    sys.exit(main())
