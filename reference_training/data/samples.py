"""What an evaluation reads: sets of images with labels, whether in files or in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from reference_training.data.images import Dataset
from reference_training.runtime.errors import RunError

CLEAN = "clean"
EvaluationSet = tuple[str, int]
"""A corruption and a severity; severity 0 for clean images, whose name then begins with `CLEAN`."""


class Images(Protocol):
    """Images by position; what torch's DataLoader asks of a dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> Tensor:
        """The image as uint8 (3, H, W)."""
        ...


def unchanged(images: Tensor, positions: Tensor) -> Tensor:
    """The images as they were read."""
    return images


@dataclass(frozen=True)
class Samples:
    """One evaluation set."""

    images: Images
    labels: Tensor  # int64 (N,)
    degrade: Callable[[Tensor, Tensor], Tensor] = unchanged
    """(uint8 (B, 3, H, W) on any device, their positions int64 (B,)) to the degraded images."""


class Labelled(Protocol):
    """Images of some classes, prepared in one way or several."""

    name: str
    classes: int
    labels: Tensor  # int64 (N,)
    files: Sequence[str]
    """The images' paths below their folder; empty for images that are not in files."""
    clean_sets: tuple[str, ...]
    """Names that begin with `CLEAN`; the first is what corruptions are made from."""
    is_imagenet: bool
    """Whether AlexNet's published errors refer to such images: ImageNet-1K, 224×224."""

    @property
    def identity(self) -> dict[str, Any]:
        """What tells these images from others, wherever they lie, as JSON."""
        ...


class CleanImages(Labelled, Protocol):
    """Labelled clean images."""

    @property
    def mark(self) -> str:
        """What tells them from others in their place since, found quickly."""
        ...

    def clean(self, name: str) -> Samples:
        """The images in one of `clean_sets`."""
        ...


class EvaluationData(Labelled, Protocol):
    """All sets of an evaluation, which have the same images in the same order."""

    def check(self, sets: Sequence[EvaluationSet]) -> None:
        """Raises RunError for sets that are not there, before anything is computed."""
        ...

    def mark(self, one: EvaluationSet) -> str:
        """What tells one set's images from others in their place, found quickly."""
        ...

    def samples(self, one: EvaluationSet) -> Samples:
        """The images of one set."""
        ...


class InMemory:
    """The test images of a `Dataset` as clean images."""

    clean_sets: tuple[str, ...] = (CLEAN,)
    files: Sequence[str] = ()
    is_imagenet = False
    mark = ""
    """None is needed: the identity is that of all images."""

    def __init__(self, dataset: Dataset) -> None:
        self.name = dataset.name
        self.classes = dataset.classes
        self.labels = dataset.test_labels
        self.dataset = dataset

    @property
    def identity(self) -> dict[str, Any]:
        """The dataset's name and its fingerprint."""
        return {"dataset": self.name, "sha256": self.dataset.sha256()}

    def clean(self, name: str) -> Samples:
        """The test images."""
        return Samples(self.dataset.test_images, self.labels)


def spread(count: int, most: int = 64) -> range:
    """At most that many positions, evenly over all, to tell images apart without reading all."""
    return range(0, count, max(1, count // most))


def check_same_labels(clean: CleanImages, name: str, labels: Tensor) -> None:
    """Raises RunError unless the clean images are those from which a published set was made."""
    if not torch.equal(clean.labels, labels):
        raise RunError(
            f"the clean images {clean.name} ({len(clean.labels)}) are not those of {name} "
            f"({len(labels)}): their number or the order of their labels differs. Give --clean "
            "the whole validation or test set, with the same class folders."
        )
