"""A folder of any images, read one after another and made into what a network was trained on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reference_training.data.image_files import EXTENSIONS, is_image, open_rgb
from reference_training.runtime.errors import RunError


def list_pictures(root: Path) -> list[str]:
    """The image files anywhere below a folder, relative to it, sorted.

    Raises:
        RunError: no such folder, or no image in it.
    """
    if not root.is_dir():
        raise RunError(f"{root} is not a folder; give the folder that holds the images.")
    found = [
        os.path.relpath(os.path.join(where, file), root)
        for where, _, files in os.walk(root)
        for file in files
        if is_image(file)
    ]
    if not found:
        raise RunError(
            f"no file below {root} has the name of an image ({', '.join(EXTENSIONS)}); give the "
            "folder that holds the images."
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
        image = open_rgb(root / file, upright=True)
        pixels, done = view(image)
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
