"""`Dataset`: labelled 8-bit images, and how smaller or grey ones become 32×32 RGB."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 32


@dataclass(frozen=True)
class Dataset:
    """Images in memory. `images` are uint8 (N, 3, 32, 32), `labels` int64 (N,)."""

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    flips: bool  # whether a mirrored image keeps its label
    description: str
    licence: str

    def sha256(self) -> str:
        """A fingerprint of all images and labels, for `run.json`."""
        digest = hashlib.sha256()
        for tensor in (
            self.train_images,
            self.train_labels,
            self.test_images,
            self.test_labels,
        ):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """What run.json says about it."""
        return {
            "name": self.name,
            "description": self.description,
            "licence": self.licence,
            "train": len(self.train_labels),
            "test": len(self.test_labels),
            "sha256": self.sha256(),
        }


def grey_to_rgb(images: Tensor) -> Tensor:
    """uint8 (N, H, W) with H, W <= 32 to (N, 3, 32, 32), black around, three equal channels."""
    height, width = images.shape[1:]
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    padded = functional.pad(images, (left, SIDE - width - left, top, SIDE - height - top))
    return padded[:, None].expand(-1, 3, -1, -1).contiguous()


def balanced(labels: Tensor, per_class: int, classes: int) -> Tensor:
    """The indices of the first `per_class` samples of each class, in ascending order."""
    chosen = [torch.nonzero(labels == label)[:per_class, 0] for label in range(classes)]
    return torch.cat(chosen).sort().values


def few(dataset: Dataset, images: int | None) -> Dataset:
    """The dataset with only its first `images` training images, balanced over the classes."""
    if images is None or images >= len(dataset.train_labels):
        return dataset
    chosen = balanced(dataset.train_labels, images // dataset.classes, dataset.classes)
    return replace(
        dataset,
        train_images=dataset.train_images[chosen],
        train_labels=dataset.train_labels[chosen],
    )


def held_out(dataset: Dataset, images: int) -> Dataset:
    """The dataset with its last `images` training images, balanced, as its test images.

    They are left out of training: what hyperparameters are chosen by.
    """
    if images == 0:
        return dataset
    per_class = images // dataset.classes
    last = len(dataset.train_labels) - 1
    chosen = last - balanced(dataset.train_labels.flip(0), per_class, dataset.classes).flip(0)
    kept = torch.ones(len(dataset.train_labels), dtype=torch.bool)
    kept[chosen] = False
    return replace(
        dataset,
        train_images=dataset.train_images[kept],
        train_labels=dataset.train_labels[kept],
        test_images=dataset.train_images[chosen],
        test_labels=dataset.train_labels[chosen],
    )
