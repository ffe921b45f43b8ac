"""A folder of any images, read one after another and made into what a network was trained on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from reference_training.runtime.errors import RunError

# An EPS file is a program, which Pillow would have Ghostscript run.
REFUSED = frozenset({"EPS"})


@cache
def readable() -> tuple[frozenset[str], tuple[str, ...]]:
    """The file name extensions and the formats that Pillow opens here."""
    extensions = Image.registered_extensions()  # also loads the plugins
    formats = tuple(name for name in Image.OPEN if name not in REFUSED)
    return frozenset(end for end, name in extensions.items() if name in formats), formats


def list_pictures(root: Path) -> list[str]:
    """The image files anywhere below a folder, relative to it, sorted.

    Raises:
        RunError: no such folder, or no image in it.
    """
    if not root.is_dir():
        raise RunError(f"{root} is not a folder; give the folder that holds the images.")
    extensions, _ = readable()
    found = [
        os.path.relpath(os.path.join(where, file), root)
        for where, _, files in os.walk(root)
        for file in files
        if os.path.splitext(file)[1].lower() in extensions
    ]
    if not found:
        raise RunError(
            f"no file below {root} has the name of an image that Pillow reads (.png, .jpg, .webp, "
            ".tif and others); give the folder that holds the images."
        )
    return sorted(found)


def fingerprint(root: Path, files: Sequence[str]) -> str:
    """A SHA-256 of the files' names, sizes and times of change."""
    digest = hashlib.sha256()
    for file in files:
        path = root / file
        about = path.stat() if path.exists() else None  # a broken link has none
        digest.update(os.fsencode(file) + b"\0")
        digest.update(f"{about and (about.st_size, about.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


def open_rgb(path: Path) -> Image.Image:
    """The image, upright and in 8-bit RGB.

    Raises:
        Exception: whatever a decoder raises for damaged bytes.
    """
    with Image.open(path, formats=readable()[1]) as file:
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith(("F", "I")):  # 16-bit grey, which convert() would clip, and others
        levels = np.asarray(image)
        if image.mode == "F" or levels.min() < 0 or levels.max() >= 2**16:
            raise ValueError("its pixels have no fixed range; save it with 8 or 16 bits")
        image = Image.fromarray((levels >> 8).astype(np.uint8))
    return image.convert("RGB")


@dataclass(frozen=True)
class View:
    """How an image becomes a square of the size that the network was trained on."""

    resize: int
    """Both sides after resizing, in pixels; the aspect ratio is not kept, as in training."""
    crop: int
    """The side of the central square that is kept."""
    pads: bool = False
    """Whether images that are smaller on both sides are put on black instead of enlarged."""

    def __call__(self, image: Image.Image) -> tuple[Tensor, str]:
        """The square, uint8 (3, crop, crop), and what was done."""
        side = self.resize
        if image.size == (side, side):
            done = "taken as they are"
        elif self.pads and max(image.size) <= side:
            black = Image.new("RGB", (side, side))
            black.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
            image, done = black, f"put on black of {side}x{side}"
        else:
            verb = "enlarged" if min(image.size) < side else "shrunk"
            image, done = image.resize((side, side), Image.Resampling.BILINEAR), verb
            done = f"{verb} to {side}x{side}"
        if self.crop != side:
            start = (side - self.crop) // 2
            image = image.crop((start, start, start + self.crop, start + self.crop))
            done += f", of which the central {self.crop}x{self.crop}"
        return torch.from_numpy(np.array(image)).movedim(-1, 0), done


@dataclass(frozen=True)
class Picture:
    """A file that was read."""

    file: str
    pixels: Tensor  # uint8 (3, crop, crop)
    size: tuple[int, int]  # width, height of the file
    prepared: str


@dataclass(frozen=True)
class Unreadable:
    """A file that was not, and why."""

    file: str
    error: str


def read(root: Path, file: str, view: View) -> Picture | Unreadable:
    """One file; nothing in it can end the program."""
    try:
        image = open_rgb(root / file)
        pixels, done = view(image)
    except UnidentifiedImageError:  # whose message is a path on this machine
        return Unreadable(file, "no image of a known format")
    except Exception as error:  # damaged bytes make decoders raise whatever they like
        return Unreadable(file, f"{type(error).__name__}: {error}"[:200])
    return Picture(file, pixels, image.size, done)


def read_batches(
    root: Path, batches: Sequence[Sequence[str]], view: View, threads: int
) -> Iterator[list[Picture | Unreadable]]:
    """Batch after batch in order; no more than one is in memory, and one image in each thread."""
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            yield list(pool.map(lambda file: read(root, file, view), batch))


def shown(file: str) -> str:
    """A file's name for a terminal or a page, whatever bytes it consists of."""
    return "".join(sign if sign.isprintable() else "?" for sign in file)
