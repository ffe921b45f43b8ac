"""Clean images in files, as ImageNet's validation set: `ROOT/n01440764/*.JPEG`.

Class folders, one folder with a ground truth, or tar shards, see `photographs`. An image has the
same label and position on every machine.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reference_training.data.photographs import Photographs, open_photographs
from reference_training.data.samples import CLEAN, Samples, spread
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import reading
from reference_training.runtime.image_files import (
    class_names,
    open_rgb,
    resize256_center224,
    some,
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

    photographs: Photographs
    _: KW_ONLY
    transform: Transform | None = None
    """Applied to each image."""
    size: Sequence[int] | None = None
    """The height and width that each must then have."""
    remedy: str = "Copy it anew"
    """What to do about a damaged file, for the message."""
    resizing: str | None = None
    """What to do about one of another size; by default the same."""

    def __len__(self) -> int:
        return len(self.photographs.labels)

    def __getitem__(self, position: int) -> Tensor:
        """The image; raises RunError if its file is unreadable or has another size."""
        path = self.photographs.root / self.photographs.name(position)
        remedy = f"{self.remedy}, and run the same command again; the finished sets are kept"
        with reading(f"the image {path}", "cannot be read", remedy):
            image = open_rgb(io.BytesIO(self.photographs.read(position)))
        if self.transform is not None:
            image = self.transform(image)
        found = torch.from_numpy(np.array(image)).movedim(-1, 0).contiguous()
        if self.size is not None and found.shape[1:] != self.size:
            raise RunError(
                f"the image {path} has {image.width}x{image.height} pixels, but all images of "
                f"this set must have {self.size[1]}x{self.size[0]}. "
                f"{self.resizing or self.remedy}."
            )
        return found


def files_sha256(photographs: Photographs, samples: Iterable[int], *, most: int = 1024) -> str:
    """A fingerprint of names and sizes and of the content of `most` samples, evenly over all."""
    digest, samples = hashlib.sha256(), [*samples]
    for at in samples:
        digest.update(f"{photographs.name(at)}\0{photographs.stat(at)[0]}\n".encode())
    for at in spread(len(samples), most):
        digest.update(photographs.read(samples[at]))
    return digest.hexdigest()


def times_sha256(photographs: Photographs, samples: Iterable[int]) -> str:
    """A fingerprint of when files were changed: tells a change in this place, found quickly."""
    times = [photographs.stat(at)[1] for at in samples]
    return hashlib.sha256(str(times).encode()).hexdigest()


class ClassFolders:
    """Clean images of some classes, in class folders or another layout that `photographs` reads.

    Args:
        root: holds one folder for each class.
        classes: how many there must be: the outputs of the network.
        preparation: a key of `PREPARATIONS`.

    Raises:
        RunError: another number of classes, an empty class folder, or an unknown layout.
    """

    def __init__(self, root: Path, classes: int, preparation: str = "imagenet") -> None:
        self.photographs = open_photographs(root)
        self.names = self.photographs.classes
        if len(self.names) != classes:
            folders = (root / name for name in self.names)
            inside = [str(at) for at in folders if at.is_dir() and len(class_names(at)) == classes]
            raise RunError(
                f"{root} has {len(self.names)} class folders ({some(self.names)}), but the network "
                f"has {classes} outputs. Give the folder that holds one folder for each class (for "
                "ImageNet's validation set n01440764 to n15075141)"
                + (f": did you mean {' or '.join(inside)}?" if inside else ".")
            )
        self.name = root.resolve().name
        self.classes = classes
        self.preparation = preparation
        self.clean_sets = tuple(PREPARATIONS[preparation])
        self.is_imagenet = preparation == "imagenet" and are_imagenets(self.names)
        self.labels = self.photographs.labels
        self.files: Sequence[str] = self.photographs.names

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The preparation, and a fingerprint of the files wherever they lie."""
        return {
            "preparation": self.preparation,
            "files_sha256": files_sha256(self.photographs, range(len(self.labels))),
        }

    @cached_property
    def mark(self) -> str:
        """When the files were changed."""
        return times_sha256(self.photographs, range(len(self.labels)))

    def clean(self, name: str) -> Samples:
        """The images, prepared in one of the ways."""
        transform = PREPARATIONS[self.preparation][name]
        images = ImageFiles(self.photographs, transform=transform)
        if transform is None:
            resizing = "Give --preparation imagenet, which makes all equally large"
            images = replace(images, size=images[0].shape[1:], resizing=resizing)
        return Samples(images, self.labels)
