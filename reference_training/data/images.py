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
    """Images in memory, or mapped. `images` are uint8 (N, 3, S, S), `labels` int64 (N,)."""

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


def balanced(labels: Tensor, count: int) -> Tensor:
    """The positions of the first images of every class, the same number of each.

    Where `count` is no multiple of the classes, some give one more: classes evenly over all.

    Args:
        labels: int64 (N,).
        count: how many, at most N.

    Returns:
        int64 (count,), ascending.
    """
    by_class = labels.argsort(stable=True)
    sizes = labels.bincount()
    place = torch.empty_like(by_class)  # of each image in its class
    place[by_class] = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[by_class]]
    rounds = by_class[place[by_class].argsort(stable=True)]  # all first ones, all second ones, ...
    last = place[rounds[count - 1]]
    whole, rest = rounds[place[rounds] < last], rounds[place[rounds] == last]
    more = count - len(whole)
    spread = rest[(2 * torch.arange(more) + 1) * len(rest) // (2 * more)]
    return torch.cat([whole, spread]).sort().values


def fixed_order(count: int) -> Tensor:
    """The positions 0, ..., count − 1 in a random order that is the same everywhere."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def _trained_on(dataset: Dataset, images: Tensor) -> Dataset:
    """The dataset with some of its training images, by position or by a mask."""
    return replace(
        dataset,
        train_images=dataset.train_images[images],
        train_labels=dataset.train_labels[images],
    )


def training_subset(dataset: Dataset, images: int | None) -> Dataset:
    """The dataset with only its first `images` training images, balanced over the classes."""
    if images is None or images >= len(dataset.train_labels):
        return dataset
    return _trained_on(dataset, balanced(dataset.train_labels, images - images % dataset.classes))


def held_out(dataset: Dataset, images: int) -> Dataset:
    """The dataset with its last `images` training images, balanced, as its test images.

    They are left out of training: what hyperparameters are chosen by.
    """
    if images == 0:
        return dataset
    last = len(dataset.train_labels) - 1
    count = images - images % dataset.classes
    tests = last - balanced(dataset.train_labels.flip(0), count).flip(0)
    kept = torch.ones(len(dataset.train_labels), dtype=torch.bool)
    kept[tests] = False
    test = _trained_on(dataset, tests)
    return replace(
        _trained_on(dataset, kept), test_images=test.train_images, test_labels=test.train_labels
    )
