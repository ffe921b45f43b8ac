"""The published CIFAR-10-C and CIFAR-100-C: `ROOT/gaussian_noise.npy`, ..., `ROOT/labels.npy`.

Each array is uint8 (5 N, 32, 32, 3): the N = 10,000 test images at severity 1, then 2, ..., 5.

Source: Hendrycks & Dietterich 2019; https://zenodo.org/records/2535967 and 3555552.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reference_training.corruptions import SEVERITIES
from reference_training.data.samples import (
    CleanImages,
    EvaluationSet,
    Samples,
    check_same_labels,
    spread,
)
from reference_training.runtime.errors import RunError

LABELS = "labels.npy"
REMEDY = (
    "Get CIFAR-10-C from https://zenodo.org/records/2535967 or CIFAR-100-C from "
    "https://zenodo.org/records/3555552 and extract it"
)


def open_array(path: Path) -> np.ndarray:
    """The array in a .npy file, read when asked for; objects are never unpickled.

    Raises:
        RunError: no such file, or no array of numbers, or cut off.
    """
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except FileNotFoundError as error:
        raise RunError(
            f"missing: {path}. {REMEDY}, or name the --corruptions that are there."
        ) from error
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{path} is no array of numbers, or cut off ({error}). {REMEDY}.") from error


class PublishedArrays:
    """The sets of CIFAR-10-C or CIFAR-100-C, and optionally the clean test images.

    Args:
        root: the folder with the arrays.
        classes: how many there must be: the outputs of the network.
        clean: the clean images, for the clean accuracy and relative errors.

    Raises:
        RunError: the labels are missing or do not fit the network.
    """

    is_imagenet = False
    files: Sequence[str] = ()

    def __init__(self, root: Path, classes: int, clean: CleanImages | None = None) -> None:
        self.root = root
        self.name = root.resolve().name
        self.classes = classes
        self.clean_images = clean
        self.clean_sets = clean.clean_sets if clean else ()
        path = root / LABELS
        every = open_array(path)
        if every.ndim != 1 or every.dtype.kind not in "iu" or len(every) % len(SEVERITIES):
            raise RunError(
                f"{path} has the shape {every.shape} and the type {every.dtype}, but must hold "
                f"whole numbers, for {len(SEVERITIES)} severities alike. {REMEDY}."
            )
        blocks = torch.from_numpy(every.astype(np.int64)).view(len(SEVERITIES), -1)
        if not (blocks == blocks[0]).all():
            raise RunError(f"{path} has other labels for other severities. {REMEDY}.")
        self.labels = blocks[0].clone()
        if set(self.labels.tolist()) != set(range(classes)):
            raise RunError(
                f"{path} has the labels {int(every.min())} to {int(every.max())}, but the network "
                f"has {classes} outputs, which would be 0 to {classes - 1}."
            )
        if clean:
            check_same_labels(clean, self.name, self.labels)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The fingerprint of the labels, and the clean images."""
        return {
            "arrays": self.name,
            "labels_sha256": hashlib.sha256(self.labels.numpy().tobytes()).hexdigest(),
            "clean": self.clean_images.identity if self.clean_images else None,
        }

    def _array(self, corruption: str) -> np.ndarray:
        path = self.root / f"{corruption}.npy"
        array = open_array(path)
        images = len(SEVERITIES) * len(self.labels)
        if array.dtype != np.uint8 or array.shape != (images, 32, 32, 3):
            raise RunError(
                f"{path} has the shape {array.shape} and the type {array.dtype}, but must be "
                f"uint8 of ({images}, 32, 32, 3), one image for each entry of {LABELS}. {REMEDY}."
            )
        return array

    def check(self, sets: Sequence[EvaluationSet]) -> None:
        """Raises RunError for arrays that are missing, damaged or of another shape."""
        for name in dict.fromkeys(name for name, severity in sets if severity):
            self._array(name)

    def mark(self, one: EvaluationSet) -> str:
        """The fingerprint of some of the set's images, and when the file was changed."""
        if self.clean_images and one[0] in self.clean_sets:
            return self.clean_images.mark
        images = self.samples(one).images
        changed = (self.root / f"{one[0]}.npy").stat().st_mtime_ns
        digest = hashlib.sha256(str(changed).encode())
        for at in spread(len(images)):
            digest.update(images[at].numpy().tobytes())
        return digest.hexdigest()

    def samples(self, one: EvaluationSet) -> Samples:
        """The images of one set."""
        name, severity = one
        if self.clean_images and name in self.clean_sets:
            return self.clean_images.clean(name)
        start = SEVERITIES.index(severity) * len(self.labels)
        images = torch.from_numpy(self._array(name)[start : start + len(self.labels)])
        return Samples(images.movedim(-1, 1), self.labels)
