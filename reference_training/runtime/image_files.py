"""Image files: the one reader of them, and the class folders in which they lie."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from reference_training.runtime.errors import RunError
from reference_training.runtime.workers import bar

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
"""What is read, whatever a file's name says. EPS must not be: Pillow would run it by Ghostscript,
for it is a program."""
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
SPLITS = {"train", "val", "valid", "validation", "test"}
"""What is called so is no class, but has a folder for each."""


def open_rgb(file: Path | BinaryIO, *, upright: bool = False) -> Image.Image:
    """The image in 8-bit RGB; of 16 bits, the upper 8 are kept.

    Args:
        file: its path, or its content.
        upright: whether the camera's note on how it was held is followed. The published accuracies
            on ImageNet ignore it.

    Raises:
        ValueError: no image of `FORMATS`, or its pixels have no fixed range.
        Exception: whatever a decoder raises for damaged bytes.
    """
    try:
        opened = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:  # whose message is an address in memory or a path
        raise ValueError(f"no image of a known format: {', '.join(FORMATS)}") from None
    with opened:
        image = ImageOps.exif_transpose(opened) if upright else opened
        if image.mode.startswith(("F", "I")):
            image = _eight_bits(image, opened.format)
        return image.convert("RGB")


def _eight_bits(image: Image.Image, kind: str | None) -> Image.Image:
    """Grey levels of 16 bits, which `convert` would clip to white, as 8 bits."""
    levels = np.asarray(image)
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM"))
    if not sixteen or levels.min() < 0 or levels.max() >= 2**16:
        raise ValueError("its pixels have no fixed range; save it with 8 or 16 bits")
    return Image.fromarray((levels >> 8).astype(np.uint8))


def resize256_center224(image: Image.Image) -> Image.Image:
    """The shorter side to 256 pixels, then the central 224×224: what ImageNet-C was made from.

    Equal to torchvision's `resize` and `center_crop`, which are slow to import.
    """
    shorter = min(image.size)
    width, height = (256 * side // shorter for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    return image.crop((left, top, left + 224, top + 224))


def squash224(image: Image.Image) -> Image.Image:
    """To 224×224, whatever the aspect ratio: the paper's official code tests clean images so."""
    return image.resize((224, 224), Image.Resampling.BILINEAR)


def class_names(root: Path) -> list[str]:
    """The class folders in `root`, in the order of their labels.

    Names that are exactly 0, 1, ..., N − 1 are numbers (ImageNetV2's published form); others are
    sorted. Hidden folders, as .ipynb_checkpoints, are none.

    Raises:
        RunError: `root` is not a folder.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    except OSError as error:
        raise RunError(f"the folder {root} cannot be read: {error.strerror}.") from error
    names = [name for name in names if not name.startswith(".")]
    numbers = [str(label) for label in range(len(names))]
    return numbers if set(names) == set(numbers) else names


def check_no_splits(root: Path, classes: Sequence[str]) -> None:
    """Raises RunError where all folders in `root` are parts of a data set, and none a class."""
    if classes and {*classes} <= SPLITS:
        raise RunError(
            f"the folders in {root} ({some(classes)}) are parts of a data set and no classes: did "
            f"you mean {' or '.join(str(root / name) for name in classes)}?"
        )


def list_images(root: Path, classes: Sequence[str]) -> tuple[list[str], Tensor]:
    """The images in the class folders, relative to `root`, and their labels int64 (N,).

    The order is torchvision's: by class, folder and name. Files that are no images and hidden
    folders are left out, which is said.

    Raises:
        RunError: a class folder is missing or has no image, or all are parts of a data set.
    """
    check_no_splits(root, classes)
    files: list[str] = []
    counts: list[int] = []
    others = _Others(list)
    for folder in filter(Path.is_dir, root.glob(".*")):
        others[HIDDEN].append(folder.name)
    with bar(len(classes), "class", "listing images") as progress:
        progress.leave = False
        for name in classes:
            before = len(files)
            files += (f"{name}/{file}" for file in _images(root / name, others))
            counts.append(len(files) - before)
            progress.update(1)
    empty = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if empty:
        raise RunError(
            f"no image in the class folders {some(empty)} of {root}; were all files copied or "
            f"extracted? Images end in {', '.join(EXTENSIONS)}; convert others, or remove the "
            "folder."
        )
    _tell(root, others)
    return files, torch.arange(len(classes)).repeat_interleave(torch.tensor(counts))


def images_below(root: Path) -> list[str]:
    """The images anywhere below a folder, relative to it.

    Raises:
        RunError: there is none, or no such folder.
    """
    others = _Others(list)
    files = list(_images(root, others))
    if not files:
        raise RunError(f"there is no image below {root}; give the folder that holds the images.")
    _tell(root, others)
    return files


_Others = defaultdict[str, list[str]]  # {kind: the names of what is left out}
HIDDEN = "hidden folder"


def _kind(name: str) -> str:
    return f"{'hidden' if name[0] == '.' else Path(name).suffix or 'other'} file"


def _tell(root: Path, others: _Others) -> None:
    """What was left out, on standard error."""
    told = (
        f"{len(names)} {kind}{'s' * (len(names) > 1)} ({some(sorted({*names}), 2)})"
        for kind, names in others.items()
    )
    if others:
        tqdm.write(f"{root}: left out, as no images: {', '.join(told)}", file=sys.stderr)


def is_image(file: str) -> bool:
    """Whether a file has an image's name; hidden ones, as macOS's ._x.png, have not."""
    return file.lower().endswith(EXTENSIONS) and not os.path.basename(file).startswith(".")


def _images(root: Path, others: _Others) -> Iterator[str]:
    """The images below a folder, relative to it, in torchvision's order; the rest to `others`."""
    found = []
    for folder, folders, names in os.walk(root, followlinks=True):
        for name in [name for name in folders if name.startswith(".")]:
            others[HIDDEN].append(name)
            folders.remove(name)
        found.append((folder, names))
    for folder, names in sorted(found):
        inside = os.path.relpath(folder, root)
        for name in sorted(names):
            if is_image(name):
                yield name if inside == "." else f"{inside}/{name}"
            else:
                others[_kind(name)].append(name)


def some(names: Sequence[str], most: int = 5, between: str = ", ") -> str:
    """The first names, and how many more there are."""
    more = f"{between.strip(', ')} and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more
