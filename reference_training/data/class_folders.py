"""Clean images in class folders, as ImageNet's validation set: `ROOT/n01440764/*.JPEG`.

An image has the same label and position on every machine, see `image_files`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reference_training.data.samples import CLEAN, Samples, spread
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import reading
from reference_training.runtime.image_files import (
    class_names,
    list_images,
    open_rgb,
    resize256_center224,
    squash224,
)

Transform = Callable[[Image.Image], Image.Image]

PREPARATIONS: dict[str, dict[str, Transform | None]] = {
    "imagenet": {
        f"{CLEAN}_resize256_center224": resize256_center224,
        f"{CLEAN}_squash224": squash224,
    },
    "as_is": {CLEAN: None},
}
"""How the images of a folder are prepared; corruptions are made from the first of each."""


IMAGENET_NAMES = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
"""SHA-256 of the 1,000 names n01440764 to n15075141 of ImageNet-1K's class folders, one a line."""


def are_imagenets(names: Sequence[str]) -> bool:
    """Whether class folders are ImageNet-1K's; 1,000 others are other classes."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest() == IMAGENET_NAMES


@dataclass(frozen=True)
class ImageFiles:
    """Image files by position, read as uint8 (3, H, W)."""

    root: Path
    files: Sequence[str]
    """Relative to the root."""
    _: KW_ONLY
    transform: Transform | None = None
    """Applied to each image."""
    size: Sequence[int] | None = None
    """The height and width that each must then have."""
    remedy: str = "Copy it anew"
    """What to do about a damaged file, for the message."""

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> Tensor:
        """The image; raises RunError if its file is unreadable or has another size."""
        path = self.root / self.files[position]
        remedy = f"{self.remedy}, and run the same command again; the finished sets are kept"
        with reading(f"the image {path}", "cannot be read", remedy):
            image = open_rgb(path)
        if self.transform is not None:
            image = self.transform(image)
        found = torch.from_numpy(np.array(image)).movedim(-1, 0).contiguous()
        if self.size is not None and found.shape[1:] != self.size:
            raise RunError(
                f"the image {path} has {image.width}x{image.height} pixels, but all images of "
                f"this set must have {self.size[1]}x{self.size[0]}. {self.remedy}."
            )
        return found


def files_sha256(root: Path, files: Sequence[str], *, most: int = 1024) -> str:
    """A fingerprint of all names and sizes and of the content of `most` files, evenly over all."""
    digest = hashlib.sha256()
    for name in files:
        digest.update(f"{name}\0{(root / name).stat().st_size}\n".encode())
    for at in spread(len(files), most):
        digest.update((root / files[at]).read_bytes())
    return digest.hexdigest()


def times_sha256(root: Path, files: Sequence[str]) -> str:
    """A fingerprint of when the files were changed: tells a change in this place, found quickly."""
    times = [(root / name).stat().st_mtime_ns if (root / name).is_file() else 0 for name in files]
    return hashlib.sha256(str(times).encode()).hexdigest()


class ClassFolders:
    """Clean images in class folders.

    Args:
        root: holds one folder for each class.
        classes: how many there must be: the outputs of the network.
        preparation: a key of `PREPARATIONS`.

    Raises:
        RunError: another number of class folders, or an empty one.
    """

    def __init__(self, root: Path, classes: int, preparation: str = "imagenet") -> None:
        names = class_names(root)
        if len(names) != classes:
            raise RunError(
                f"{root} has {len(names)} class folders, but the network has {classes} outputs. "
                "Give the folder that holds exactly one folder for each class (for ImageNet's "
                "validation set n01440764 to n15075141)."
            )
        self.root = root
        self.name = root.resolve().name
        self.classes = classes
        self.preparation = preparation
        self.clean_sets = tuple(PREPARATIONS[preparation])
        self.is_imagenet = preparation == "imagenet" and are_imagenets(names)
        self.files, self.labels = list_images(root, names)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The preparation, and a fingerprint of the files wherever they lie."""
        return {
            "preparation": self.preparation,
            "files_sha256": files_sha256(self.root, self.files),
        }

    @cached_property
    def mark(self) -> str:
        """When the files were changed."""
        return times_sha256(self.root, self.files)

    def clean(self, name: str) -> Samples:
        """The images, prepared in one of the ways."""
        transform = PREPARATIONS[self.preparation][name]
        images = ImageFiles(self.root, self.files, transform=transform)
        if transform is None:
            images = replace(images, size=images[0].shape[1:])
        return Samples(images, self.labels)
