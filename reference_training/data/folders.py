"""Photographs in class folders as a `Dataset` of squares.

Each is decoded and resized once, into a file in the cache that is mapped and not loaded: only what
a batch needs is read, whatever the number and the size of the images.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from reference_training.data.images import Dataset
from reference_training.runtime.errors import RunError
from reference_training.runtime.image_files import class_names, list_images, open_rgb, some
from reference_training.runtime.workers import bar

TRAIN, TESTS = "train", ("val", "test", "valid", "validation")
HELD_OUT = 5
"""Without a folder of test images, every fifth image of each class is one."""
ANNOTATIONS = "val_annotations.txt"


class Split(NamedTuple):
    """Image files relative to a folder, and their labels int64 (N,)."""

    root: Path
    files: list[str]
    labels: Tensor


@dataclass(frozen=True)
class FolderDataset:
    """A dataset of photographs as it is published: how its folder is read, what is said of it."""

    description: str
    licence: str = "none stated by its authors"
    unpacked: tuple[str, ...] = ()
    """What the published archive's one folder is called."""
    classes: int | None = None
    """How many there must be."""


PHOTOGRAPHS = {
    "folder": FolderDataset("Photographs in class folders", "that of the photographs"),
    "cifar10": FolderDataset(
        "CIFAR-10", "none stated by its authors; cite Krizhevsky 2009", classes=10
    ),
    "tiny-imagenet": FolderDataset(
        "Tiny-ImageNet-200",
        "ImageNet's terms of access",
        ("tiny-imagenet-200",),
        classes=200,
    ),
    "imagenette": FolderDataset(
        "Imagenette (ten classes of ImageNet)",
        "ImageNet's terms of access; the selection is Apache-2.0",
        ("imagenette2", "imagenette2-320", "imagenette2-160"),
        classes=10,
    ),
}
"""A dataset in class folders is one entry."""


def load_photographs(name: str, data_root: Path | None, side: int) -> Dataset:
    """The dataset called `name`, its images cropped to central squares of `side` pixels.

    Args:
        name: a key of `PHOTOGRAPHS`.
        data_root: holds train/ and val/ (or test/) with a folder for each class, or the class
            folders alone, of which every fifth image is then held out; Tiny-ImageNet's published
            form with val_annotations.txt is read too.
        side: of the squares, pixels.

    Raises:
        RunError: no folder is given, its form is another, a file cannot be read, or the cache has
            no room.
    """
    known = PHOTOGRAPHS[name]
    if data_root is None:
        raise RunError(
            f"--dataset {name} needs its images; give the folder that holds train/ and val/ with a "
            "folder for each class as --data-root."
        )
    inside = [data_root / folder for folder in known.unpacked if (data_root / folder).is_dir()]
    root = inside[0] if inside else data_root
    train, test = _tiny_imagenet(root) if _is_tiny_imagenet(root) else _splits(root)
    classes = int(train.labels[-1]) + 1
    if known.classes not in (None, classes):
        raise RunError(
            f"{root} has {classes} classes, but {known.description} has {known.classes}; give its "
            "folder as --data-root, or choose --dataset folder for other images."
        )
    return Dataset(
        name=name,
        train_images=squares(train, side),
        train_labels=train.labels,
        test_images=squares(test, side),
        test_labels=test.labels,
        classes=classes,
        flips=True,
        description=f"{known.description}, {side}×{side}",
        licence=known.licence,
    )


def _splits(root: Path) -> tuple[Split, Split]:
    train = root / TRAIN
    if not train.is_dir():
        return _held_out(root)
    tests = [root / name for name in TESTS if (root / name).is_dir()]
    if not tests:
        raise RunError(
            f"{root} has {TRAIN}/ but none of {', '.join(TESTS)}; put the images to evaluate on "
            "into one of these, or give the folder of the classes itself: a fifth is then held out."
        )
    names, others = class_names(train), class_names(tests[0])
    if names != others:
        differing = sorted({*names} ^ {*others})
        raise RunError(
            f"{train} and {tests[0]} must have the same class folders, but these are in one of "
            f"them alone: {some(differing)}."
        )
    _check_classes(train, names)
    return Split(train, *list_images(train, names)), Split(tests[0], *list_images(tests[0], names))


def _check_classes(root: Path, names: list[str]) -> None:
    if len(names) < 2:
        raise RunError(
            f"{root} has {len(names)} class folders; there must be two at least, as "
            f"{root / 'cats'} and {root / 'dogs'}."
        )


def _held_out(root: Path) -> tuple[Split, Split]:
    names = class_names(root)
    _check_classes(root, names)
    files, labels = list_images(root, names)
    counts = labels.bincount()
    if counts.min() < HELD_OUT:
        few = [name for name, count in zip(names, counts, strict=True) if count < HELD_OUT]
        raise RunError(
            f"every {HELD_OUT}th image of a class is held out for the evaluation, but {some(few)} "
            f"in {root} have fewer images than that; add some, or make train/ and val/ yourself."
        )
    place = torch.arange(len(files)) - (counts.cumsum(0) - counts)[labels]
    held = place % HELD_OUT == HELD_OUT - 1
    train, test = (
        Split(root, [files[at] for at in chosen.nonzero().flatten().tolist()], labels[chosen])
        for chosen in (~held, held)
    )
    return train, test


def _is_tiny_imagenet(root: Path) -> bool:
    return (root / "val" / ANNOTATIONS).is_file()


def _tiny_imagenet(root: Path) -> tuple[Split, Split]:
    """Its published form: train/<class>/images/*.JPEG, val/images/*.JPEG and a list of these."""
    names = class_names(root / TRAIN)
    _check_classes(root / TRAIN, names)
    path, label_of = root / "val" / ANNOTATIONS, {name: label for label, name in enumerate(names)}
    files, labels = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        file, _, rest = line.partition("\t")
        name = rest.partition("\t")[0]
        if name not in label_of or Path(file).name != file:
            raise RunError(
                f"{path}, line {number}: {line[:60]!r} is no image and one of the class folders "
                f"of {root / TRAIN}, separated by tabs; unpack the archive again."
            )
        files.append(f"images/{file}")
        labels.append(label_of[name])
    test = Split(root / "val", files, torch.tensor(labels, dtype=torch.int64))
    return Split(root / TRAIN, *list_images(root / TRAIN, names)), test


def cache_folder() -> Path:
    """Where decoded images are kept: $ULFD_CACHE, or ulfd in the user's folder of caches.

    Everything in it can be deleted; it is made again when it is missing.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ULFD_CACHE") or Path(caches) / "ulfd")


def squares(split: Split, side: int) -> Tensor:
    """The images as uint8 (N, 3, side, side), mapped from the cache, where they are made once.

    The shorter side is resized to `side` pixels (antialiased, bilinear), and the centre kept; the
    camera's note on how it was held is followed.

    Raises:
        RunError: files cannot be read, or the cache cannot be written or has no room.
    """
    path = cache_folder() / f"squares-{_key(split, side)}.npy"
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _check_room(path.parent, len(split.files) * 3 * side * side)
            _decode(split, side, path)
        except OSError as error:
            raise RunError(
                f"the cache {path.parent} cannot be written: {error.strerror or error}. Name "
                "another folder in the environment variable ULFD_CACHE."
            ) from error
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def _key(split: Split, side: int) -> str:
    """Tells these files at this size from others, and from themselves after a change."""
    digest = hashlib.sha256(f"{split.root.resolve()}\0{side}\n".encode())
    for file in split.files:
        try:
            facts = (split.root / file).stat()
        except OSError as error:
            raise RunError(
                f"the image {split.root / file} is not there; were all files copied or extracted?"
            ) from error
        digest.update(f"{file}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"the decoded images need {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB "
            "are free. Choose a smaller --side, or name another folder in the environment variable "
            "ULFD_CACHE; --dataset imagenet decodes while it trains."
        )


def _decode(split: Split, side: int, path: Path) -> None:
    part, broken = path.with_suffix(f".{os.getpid()}"), list[str]()
    shape = (len(split.files), 3, side, side)
    images = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
    try:
        with bar(len(split.files), "image", f"decoding {split.root}") as progress:
            progress.leave = False
            for image, file in zip(images, split.files, strict=True):
                try:
                    image[:] = _square(split.root / file, side)
                except Exception as error:  # decoders raise what they like for damaged bytes
                    broken.append(f"{file} ({error})")
                progress.update(1)
        if broken:
            raise RunError(
                f"{len(broken)} of {len(split.files)} images in {split.root} cannot be read: "
                f"{some(broken)}. Copy them anew, or remove them."
            )
        images.flush()
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _square(path: Path, side: int) -> np.ndarray:
    image = open_rgb(path, upright=True)
    if image.size != (side, side):
        image = ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)
