"""How large everything is that `benchmarks.gpu_phases` measures, and the images it is given."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Size:
    """How large everything is that the phases measure."""

    device: str
    arch: str
    crop: int
    resize: int
    photograph: tuple[int, int]
    """Height and width of a training photograph, in pixels."""
    photographs: int
    pairs: tuple[int, ...]
    """In a batch of a training; each is measured."""
    iterations: int
    precision: str
    workers: int
    batch: int
    """Images corrupted at once."""
    evaluated: int
    """Images of each set of an evaluation."""


SIZES = {
    "cuda": Size(
        "cuda", "resnet50", 224, 256, (375, 500), 512, (64, 256), 60, "bfloat16", 8, 256, 2000
    ),
    "cpu": Size("cpu", "resnet8", 32, 36, (48, 64), 16, (4,), 20, "float32", 0, 15, 8),
}
"""By device: what the paper trains, and the smallest form, which shows that everything runs."""


def pictures(count: int, height: int, width: int) -> Tensor:
    """Smooth colours with some noise: uint8 (count, 3, height, width), needing no file."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 7, 7, generator=generator)
    smooth = functional.interpolate(coarse, (height, width), mode="bicubic")
    grain = torch.randn(smooth.shape, generator=generator) / 32
    return (smooth + grain).clamp_(0, 1).mul_(255).to(torch.uint8)


def photographs(size: Size, folder: Path) -> Path:
    """JPEG files in class folders below train/, written once."""
    root = folder / "photographs"
    if not root.exists():
        part = folder / "photographs.part"
        shutil.rmtree(part, ignore_errors=True)
        for number in range(size.photographs):
            place = part / "train" / f"class{number % 8}" / f"{number:04}.jpeg"
            place.parent.mkdir(parents=True, exist_ok=True)
            picture = pictures(1, *size.photograph)[0].roll(number, 0).movedim(0, -1)
            Image.fromarray(picture.numpy()).save(place, quality=90)
        part.rename(root)
    return root
