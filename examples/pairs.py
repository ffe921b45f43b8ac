"""What the other examples train on; your own data takes its place.

Garments of the embedded Fashion-MNIST photographs, and the same images under corruptions.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset, default_collate
from torchvision.ops import masks_to_boxes
from tqdm import tqdm

from reference_training.corruptions import RandomCorruption
from reference_training.data import load

degraded = RandomCorruption(frost="procedural")
"""The same images (B, 3, H, W), each under a corruption of ImageNet-C at a severity, both drawn."""


def pairs(iterations: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches (clean, degraded, labels): images (B, 3, 32, 32) in [0, 1] of ten classes."""
    data = load("fashion-mnist-subset")
    for _ in tqdm(range(iterations)):
        chosen = torch.randint(len(data.train_labels), (batch_size,))
        clean = data.train_images[chosen] / 255
        yield clean, degraded(clean), data.train_labels[chosen]


def garments() -> TensorDataset:
    """The same images, uint8 (3, 32, 32), with their labels, for a DataLoader."""
    data = load("fashion-mnist-subset")
    return TensorDataset(data.train_images, data.train_labels)


def paired(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Collates `garments` to what `pairs` yields."""
    images, labels = default_collate(items)
    clean = images / 255
    return clean, degraded(clean), labels


@torch.no_grad()
def accuracy(model: nn.Module) -> str:
    """Top-1 of a classifier on test images that it has not seen, as they are and degraded."""
    data = load("fashion-mnist-subset")
    clean, labels = data.test_images[::10] / 255, data.test_labels[::10]
    model.eval()
    shares = [
        (model(shown).argmax(1) == labels).float().mean() for shown in (clean, degraded(clean))
    ]
    return f"top-1 on {len(labels)} test images: {shares[0]:.0%} clean, {shares[1]:.0%} degraded"


Boxes = list[dict[str, Tensor]]


def scenes(iterations: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Boxes, Tensor]]:
    """Batches (clean, degraded, boxes, classes) of images (B, 3, 64, 64) with four garments.

    `boxes` is what torchvision's detectors take, `classes` (B, 64, 64) the class of every pixel;
    0 is the background.
    """
    corners = torch.tensor([[0, 0], [32, 0], [0, 32], [32, 32]]).repeat(batch_size, 2)
    for garments, _, labels in pairs(iterations, 4 * batch_size):
        shown = garments[:, :1] > 0.1
        boxes = (masks_to_boxes(shown[:, 0]) + corners).view(batch_size, 4, 4)
        classes = (labels + 1).view(batch_size, 4)
        clean = _scene(garments)
        yield (
            clean,
            degraded(clean),
            [{"boxes": b, "labels": c} for b, c in zip(boxes, classes, strict=True)],
            _scene(shown * classes.view(-1, 1, 1, 1))[:, 0],
        )


def _scene(tiles: Tensor) -> Tensor:
    """(4B, C, 32, 32) to (B, C, 64, 64)."""
    rows = tiles.unflatten(0, (-1, 2, 2))
    return rows.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
