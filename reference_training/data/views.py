"""From a file to what the network sees: decoding, resizing, cropping."""

from collections import defaultdict
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reference_training.data.image_files import open_rgb
from reference_training.data.second_images import Corruptions

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's, by which torchvision's weights expect their input."""


@dataclass(frozen=True)
class Views:
    """What a network sees of a photograph."""

    resize: int
    """Both sides, in pixels, after resizing; the aspect ratio is not kept (official code)."""
    crop: int
    """The side of the random square crop, in pixels."""
    corruptions: Corruptions
    """Which corruptions are drawn, and how."""


def decode(content: bytes) -> Tensor:
    """An image file as uint8 (H, W, 3) RGB."""
    return torch.from_numpy(np.array(open_rgb(BytesIO(content))))


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
        batch = torch.stack([images[place] for place in places]).permute(0, 3, 1, 2)
        squares = functional.interpolate(
            batch.float().contiguous(), (side, side), mode="bilinear", antialias=True
        )
        groups.append(squares.round_().clamp_(0, 255).to(torch.uint8))
    order = torch.tensor([place for places in alike.values() for place in places])
    return torch.cat(groups)[order.argsort().to(groups[0].device, non_blocking=True)]


def cropped(images: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """From each image (B, 3, H, W) the square whose corner is at `top`, `left`, both (B,)."""
    along = torch.arange(side, device=images.device)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    rows, columns = (top[:, None] + along)[:, :, None], (left[:, None] + along)[:, None, :]
    return images[each, :, rows, columns].permute(0, 3, 1, 2)
