"""From a file to what the network sees: decoding, resizing, cropping."""

import math
from collections import defaultdict
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from reference_training.corruptions.random import Random
from reference_training.data.second_images import Corruptions
from reference_training.runtime.image_files import open_rgb

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's, by which torchvision's weights expect their input."""


VIEWS = ("crop", "corrupted_crop", "resized_crop")
"""What a pair may show of a photograph; see `Recipe.view`."""
AREA, SHAPE = (0.08, 1.0), (3 / 4, 4 / 3)
"""Of a crop of random size and shape: its share of the photograph, width over height."""
TRIES = 10  # random shapes, before the largest allowed in the middle is taken
SHAPES = 3  # the domain of their draws


@dataclass(frozen=True)
class Views:
    """What a network sees of a photograph."""

    resize: int
    """Both sides, in pixels, after resizing; the aspect ratio is not kept (official code)."""
    crop: int
    """The side of the random square crop, in pixels."""
    corruptions: Corruptions
    """Which corruptions are drawn, and how."""
    kind: str = "crop"
    """One of `VIEWS`."""

    @property
    def side(self) -> int:
        """Both sides of the squares from which the crops are cut, in pixels."""
        return self.crop if self.kind == "resized_crop" else self.resize

    @property
    def corrupted(self) -> int:
        """Both sides of the squares that are corrupted, in pixels."""
        return self.resize if self.kind == "corrupted_crop" else self.crop


def decode(content: bytes) -> Tensor:
    """An image file as uint8 (H, W, 3) RGB."""
    return torch.from_numpy(np.array(open_rgb(BytesIO(content))))


def random_resized_crop(image: Tensor, seed: Tensor, side: int) -> Tensor:
    """A part of random size, shape and place, resized to a square: torchvision's RandomResizedCrop.

    Args:
        image: uint8 (H, W, 3).
        seed: int64 (), of all draws.
        side: of the square, pixels.

    Returns:
        uint8 (side, side, 3), by Pillow's BILINEAR.

    Source: Szegedy et al. 2015, with torchvision's defaults, see `AREA` and `SHAPE`.
    """
    height, width = image.shape[:2]
    top, left, rows, columns = _part(height, width, Random(seed[None], domain=SHAPES))
    part = Image.fromarray(image[top : top + rows, left : left + columns].numpy())
    square = part.resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(square))


def _part(height: int, width: int, random: Random) -> tuple[int, int, int, int]:
    """Where the part begins, top and left, and how many rows and columns it has."""
    for area, shape, down, right in random.uniform(4 * TRIES).view(TRIES, 4).tolist():
        pixels = (AREA[0] + (AREA[1] - AREA[0]) * area) * height * width
        ratio = SHAPE[0] * (SHAPE[1] / SHAPE[0]) ** shape  # uniform in the logarithm
        rows, columns = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            return (
                int(down * (height - rows + 1)),
                int(right * (width - columns + 1)),
                rows,
                columns,
            )
    rows, columns = min(height, round(width / SHAPE[0])), min(width, round(height * SHAPE[1]))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def resized(images: list[Tensor], side: int) -> Tensor:
    """Images of any sizes, squashed to squares by an antialiased bilinear filter.

    Args:
        images: each uint8 (H, W, 3).
        side: of the squares, pixels.

    Returns:
        uint8 (B, 3, side, side) on the images' device; within one grey level of Pillow's BILINEAR.
    """
    alike = defaultdict(list)
    for place, image in enumerate(images):
        alike[image.shape].append(place)
    groups = []
    for places in alike.values():
        batch = torch.stack([images[place] for place in places]).permute(0, 3, 1, 2).contiguous()
        if batch.shape[-2:] != (side, side):  # it would change nothing: `prepare` made them so
            squares = functional.interpolate(
                batch.float(), (side, side), mode="bilinear", antialias=True
            )
            batch = squares.round_().clamp_(0, 255).to(torch.uint8)
        groups.append(batch)
    order = torch.tensor([place for places in alike.values() for place in places])
    return torch.cat(groups)[order.argsort().to(groups[0].device, non_blocking=True)]


def cropped(images: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """From each image (B, ..., H, W) the square whose corner is at `top`, `left`, both (B,)."""
    along = torch.arange(side, device=images.device)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    rows, columns = (top[:, None] + along)[:, :, None], (left[:, None] + along)[:, None, :]
    return images[each, ..., rows, columns].movedim((1, 2), (-2, -1))


@dataclass(frozen=True)
class CentralView:
    """What a network sees of any image after training: a square of the size of its training."""

    resize: int
    """Both sides after resizing, in pixels; the aspect ratio is not kept, as in training."""
    crop: int
    """The side of the central square that is kept."""
    pads: bool = False
    """Whether images that are smaller on both sides are put on black instead of enlarged."""

    def __call__(self, image: Image.Image) -> Tensor:
        """The square of an RGB image, uint8 (3, crop, crop)."""
        side, start = self.resize, (self.resize - self.crop) // 2
        if self.pads and max(image.size) <= side:
            black = Image.new("RGB", (side, side))
            black.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
            image = black
        image = image.resize((side, side), Image.Resampling.BILINEAR)  # as it is, if it fits
        image = image.crop((start, start, start + self.crop, start + self.crop))
        return torch.from_numpy(np.array(image)).movedim(-1, 0)
