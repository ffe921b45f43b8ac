"""Photographs, a small network and its evaluation: what the tests of this folder share."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch import nn

from reference_training.data import load
from reference_training.data.samples import InMemory
from reference_training.evaluation import CorruptionOptions, OnTheFly, evaluate_corruptions
from reference_training.networks.preprocessing import Preprocessing

CLASSES = ("n01440764", "n01443537", "n01484850")
EACH = 2
CORRUPTIONS = ("gaussian_noise", "frost", "saturate")


def photographs(count: int, size: tuple[int, int]) -> list[Image.Image]:
    """Different crops of scikit-image's photographs, in colour."""
    sources = [data.astronaut(), data.chelsea(), data.coffee()]
    pictures = []
    for index in range(count):
        source = Image.fromarray(sources[index % len(sources)])
        left = 11 * (index // len(sources))
        pictures.append(source.crop((left, left, left + 280, left + 260)).resize(size))
    return pictures


def write_class_folders(root: Path, pictures: list[Image.Image], brightness: float = 1.0) -> None:
    for index, picture in enumerate(pictures):
        folder = root / CLASSES[index // EACH]
        folder.mkdir(parents=True, exist_ok=True)
        changed = picture.point(lambda level: round(level * brightness))
        changed.save(folder / f"ILSVRC2012_val_{index:08d}.JPEG", quality=85)


IMAGES = 20
LABELS = np.tile(np.arange(10), IMAGES // 10)


class Tiny(nn.Module):
    """Mean colours of a 4x4 grid, and one linear layer: a network for images of any size."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.norm = nn.BatchNorm1d(48)
        self.fc = nn.Linear(48, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(self.pool(x).flatten(1)))


def tiny(classes: int, seed: int = 0) -> Tiny:
    """A network with random weights, in train mode."""
    torch.manual_seed(seed)
    return Tiny(classes)


READY = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PLAIN = CorruptionOptions(frost="procedural")


def digits(**options) -> OnTheFly:
    return OnTheFly(InMemory(load("digits")), PLAIN, **options)


def evaluate(data, out, *, classes=10, model=None, **options):
    network = tiny(classes) if model is None else model
    return evaluate_corruptions(network, data, out=out, preprocessing=READY, **options)
