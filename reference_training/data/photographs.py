"""Photographs in files of any number: class folders, one folder, or tar files.

All give sample number i its bytes and its label, so the layouts of one data set train alike.
The shards are read by position and not as a stream through a shuffling buffer, in which what
comes next depends on the number of workers; for that the standard library's tarfile, which finds
out once where each image begins, is enough, and the package webdataset is not needed.
"""

import hashlib
import os
import re
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from reference_training.corruptions.random import Random
from reference_training.data.ground_truth import ground_truth
from reference_training.data.samples import spread
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import reading
from reference_training.runtime.image_files import (
    EXTENSIONS,
    class_names,
    is_image,
    list_images,
    some,
)
from reference_training.runtime.workers import bar

RECORD = "prepared.json"
"""Lies beside train/ where `prepare` made the photographs."""
FOLDERS = 2  # the domain of the draws of a folder of augmented images
CLASS = re.compile(r"n\d{8}")  # a name of one of ImageNet's classes
LABEL_BYTES = 20  # of a decimal number in 64 bits


class Photographs(ABC):
    """Labelled image files; nothing is read before it is asked for."""

    root: Path
    classes: tuple[str, ...]
    labels: Tensor  # int64 (N,)
    _names: np.ndarray

    def name(self, sample: int) -> str:
        """Where the sample is below the root."""
        return os.fsdecode(self._names[sample])

    @property
    def names(self) -> list[str]:
        """Where all samples are below the root."""
        return [os.fsdecode(name) for name in self._names]

    @abstractmethod
    def read(self, sample: int) -> bytes:
        """The sample's file."""

    @abstractmethod
    def stat(self, sample: int) -> tuple[int, int]:
        """The size of the sample's file in bytes, and when it was changed, in ns."""


def fingerprint(photographs: Photographs) -> str:
    """SHA-256 of all names and labels, and of some images (all would be many gigabytes)."""
    digest = hashlib.sha256(photographs.labels.numpy().tobytes())
    for sample in range(len(photographs.labels)):
        digest.update(os.fsencode(photographs.name(sample)) + b"\0")
    for sample in spread(len(photographs.labels)):
        digest.update(photographs.read(sample))
    return digest.hexdigest()


def _compact(names: list[str]) -> np.ndarray:
    """Names in one block of memory, which the workers share; a million str would be copied."""
    return np.array([os.fsencode(name) for name in names], dtype=np.bytes_)


class ImageFolder(Photographs):
    """root/<class>/**/<image>: the layout of torchvision's ImageFolder; see `image_files`.

    Args:
        root: the folder of the class folders.
        classes: which of them; by default all.
    Raises:
        RunError: a class folder has no image.
    """

    def __init__(self, root: Path, classes: Sequence[str] | None = None) -> None:
        self.root = root
        self.classes = tuple(class_names(root) if classes is None else classes)
        names, self.labels = list_images(root, self.classes)
        self._names = _compact(names)

    def at(self, root: Path) -> "ImageFolder":
        """Files of the same names below another folder."""
        other = copy(self)
        other.root = root
        return other

    def read(self, sample: int) -> bytes:
        return (self.root / self.name(sample)).read_bytes()

    def stat(self, sample: int) -> tuple[int, int]:
        found = (self.root / self.name(sample)).stat()
        return found.st_size, found.st_mtime_ns


class FlatFolder(ImageFolder):
    """root/<image>, by class and name as in class folders; a file says the classes.

    Args:
        root: the folder of the images; see `ground_truth`.
    Raises:
        RunError: there is no such file, or it does not name the class of an image.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        truth = ground_truth(root)
        files = sorted(entry.name for entry in os.scandir(root) if is_image(entry.name))
        if unknown := [file for file in files if Path(file).stem not in truth]:
            raise RunError(f"the ground truth of {root} does not name {some(unknown)}.")
        files.sort(key=lambda file: truth[Path(file).stem])
        named = [truth[Path(file).stem] for file in files]
        self.classes = tuple(sorted(set(named)))
        places = {name: place for place, name in enumerate(self.classes)}
        self.labels = torch.tensor([places[name] for name in named])
        self._names = _compact(files)


class _Entry(NamedTuple):
    """An image in a shard."""

    name: str
    label: int
    shard: int
    offset: int
    size: int


@lru_cache(maxsize=4096)
def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


class Shards(Photographs):
    """root/*.tar in WebDataset's form: <key>.jpg and <key>.cls, the label as a decimal number.

    ImageNet's own n01440764.tar, which ILSVRC2012_img_train.tar holds, have no labels but a class
    each; they are read as they are.

    Args:
        root: the folder of the shards, which are not compressed.
    Raises:
        RunError: a shard is no tar file, an image has no label, or its key is not its own.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = sorted(root.glob("*.tar"))
        self.by_class = all(CLASS.fullmatch(path.stem) for path in self.paths)
        entries: list[_Entry] = []
        with bar(len(self.paths), "shard", "indexing shards") as progress:
            for number, path in enumerate(self.paths):
                entries += self._index(path, number)
                progress.update(1)
        self.labels = torch.tensor([entry.label for entry in entries])
        if not entries or self.labels.min() < 0:
            raise RunError(
                f"the shards in {root} hold no images, or negative labels. ImageNet's "
                "ILSVRC2012_img_train.tar holds tars: extract it, and leave those as they are."
            )
        labels = range(len(self.paths) if self.by_class else int(self.labels.max()) + 1)
        if self.by_class and (empty := sorted({*labels} - {*self.labels.tolist()})):
            raise RunError(f"no image in {some([str(self.paths[at]) for at in empty])}.")
        self.classes = tuple(self.paths[at].stem if self.by_class else str(at) for at in labels)
        self._names = _compact([entry.name for entry in entries])
        self._places = np.array([entry[2:] for entry in entries], dtype=np.int64)

    def _index(self, path: Path, number: int) -> Iterator[_Entry]:
        """The images in a shard; none may be lost or mistaken for another."""
        images: dict[str, tarfile.TarInfo] = {}
        labels: dict[str, int] = {}
        remedy = "Fetch or make it again, uncompressed"
        with (
            reading(path, "is no plain tar file in WebDataset's form", remedy),
            tarfile.open(path, "r:") as shard,
        ):
            for member in shard:
                folder, _, file = member.name.rpartition("/")
                key, _, extension = file.partition(".")  # WebDataset's rule: the first dot
                key = f"{folder}/{key}" if folder else key
                if not is_image(file) and extension != "cls":
                    continue
                if self.by_class:
                    labels[key] = number
                is_label, why = extension == "cls", ""
                if key in (labels if is_label else images):
                    why = "its key is there twice; number the keys"
                elif not is_label and f".{extension.lower()}" not in EXTENSIONS:
                    why = "a key ends at the first dot; take the others out of the name"
                elif not member.isreg() or member.issparse():
                    why = "it is a link or no plain file; store the file itself"
                elif is_label and member.size > LABEL_BYTES:
                    why = f"a label has at most {LABEL_BYTES} bytes"
                if why:
                    raise RunError(f"{path}: {member.name} cannot be taken: {why}.")
                if is_label:
                    content = shard.extractfile(member)
                    labels[key] = int(content.read()) if content else -1
                else:
                    images[key] = member
        for key in images.keys() - labels.keys():
            raise RunError(f"{path}: {images[key].name} has no {key}.cls with its label.")
        for key, member in sorted(images.items()) if self.by_class else images.items():
            place = (number, member.offset_data, member.size)
            yield _Entry(f"{path.name}/{member.name}", labels[key], *place)

    def read(self, sample: int) -> bytes:
        shard, offset, size = self._places[sample].tolist()
        return os.pread(_opened(self.paths[shard]), size, offset)

    def stat(self, sample: int) -> tuple[int, int]:
        shard, _, size = self._places[sample].tolist()
        return size, os.fstat(_opened(self.paths[shard])).st_mtime_ns


def _refuse_parquet(root: Path) -> Photographs:
    raise RunError(
        f"{root} holds parquet shards, whose images cannot be read by position; write the bytes of "
        f"each row's image to {root}-folders/<label in four digits>/<row>.jpg, with the package "
        "datasets and its Image(decode=False), and give that folder."
    )


LAYOUTS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Photographs]]] = {
    "class folders": (class_names, ImageFolder),
    "*.tar shards": (lambda root: next(root.glob("*.tar"), None), Shards),
    "*.parquet shards": (lambda root: next(root.glob("*.parquet"), None), _refuse_parquet),
}
"""What tells a layout from others, and what reads it; `FlatFolder` where it is none of these."""


def open_photographs(root: Path) -> Photographs:
    """The photographs below `root`, whatever their layout.

    Raises:
        RunError: it has none that is known, or two.
    """
    if not root.is_dir():
        raise RunError(f"the folder {root} does not exist; name the one that holds the images.")
    found = [name for name, (tells, _) in LAYOUTS.items() if tells(root)]
    if len(found) > 1:
        raise RunError(
            f"{root} has {' and '.join(found)}, perhaps the same images twice; leave one of them."
        )
    if found:
        return LAYOUTS[found[0]][1](root)
    if any(is_image(entry.name) for entry in os.scandir(root)):
        return FlatFolder(root)
    raise RunError(f"{root} has neither {' nor '.join(LAYOUTS)}; make a folder for each class.")


@dataclass(frozen=True)
class AugmentedFolders:
    """Images that were augmented beforehand, as DeepAugment's: <root>/<name of the photograph>.

    Raises:
        RunError: the first or the last photograph is missing in one of the folders.
    """

    photographs: Photographs
    roots: Sequence[Path]
    """Each has all photographs; which one is drawn for each pair."""

    def __post_init__(self) -> None:
        last = len(self.photographs.labels) - 1
        for path in (root / self.photographs.name(at) for root in self.roots for at in (0, last)):
            if not path.is_file():
                raise RunError(
                    f"{path} does not exist: a folder of --deepaugment-roots has every training "
                    "image, augmented, below the name that it has below the training folder."
                )

    def read(self, sample: int, seed: Tensor) -> bytes:
        """The file of the sample in one of the folders; the seed, int64 (), says which."""
        folder = Random(seed[None], domain=FOLDERS).integers(0, len(self.roots), 1)
        return (self.roots[int(folder)] / self.photographs.name(sample)).read_bytes()
