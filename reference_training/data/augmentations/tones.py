"""AugMix's operations on grey levels: autocontrast, equalize, posterize, solarize.

To the bit those of Pillow's `ImageOps`. Images are uint8 (N, 3, H, W); the levels, float64 (N,) on
the CPU, are AugMix's strengths from 0 to 10.

Source: Hendrycks et al. 2020, AugMix (operations and ranges); Pillow (their definitions).
"""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 256


def autocontrast(images: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """Stretch each channel to all of 0..255: trunc(255 (x − min) / (max − min)).

    Args:
        images: uint8 (N, 3, H, W).
        levels, signs: not needed.

    Returns:
        uint8 (N, 3, H, W); a channel of one grey level stays as it is.
    """
    low = images.amin(dim=(2, 3), keepdim=True).double()
    high = images.amax(dim=(2, 3), keepdim=True).double()
    scale = torch.full_like(low, 255) / (high - low)  # 255 / tensor would round twice
    ramp = torch.arange(LEVELS, dtype=torch.float64, device=images.device)
    table = ramp * scale.flatten(2) + (-low * scale).flatten(2)
    table = torch.where((high > low).flatten(2), table, ramp).clamp(0, 255).to(torch.uint8)
    return table.gather(2, images.flatten(2).long()).view(images.shape)


def equalize(images: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """Flatten each channel's histogram.

    Args:
        images: uint8 (N, 3, H, W).
        levels, signs: not needed.

    Returns:
        uint8 (N, 3, H, W).
    """
    from torchvision.transforms.v2 import functional  # slow to import

    return functional.equalize(images)


def posterize(images: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """Keep the highest 4 − ⌊4 level / 10⌋ of the eight bits.

    Args:
        images: uint8 (N, 3, H, W).
        levels: float64 (N,).
        signs: not needed.

    Returns:
        uint8 (N, 3, H, W).
    """
    bits = 4 - (levels * 4 / 10).long()
    mask = (LEVELS - 2 ** (8 - bits)).to(torch.uint8)
    return images & _for_each(mask, images)


def solarize(images: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """Invert what is not below 256 − ⌊256 level / 10⌋.

    Args:
        images: uint8 (N, 3, H, W).
        levels: float64 (N,).
        signs: not needed.

    Returns:
        uint8 (N, 3, H, W).
    """
    threshold = LEVELS - (levels * 256 / 10).long()
    return torch.where(images < _for_each(threshold, images), images, 255 - images)


def _for_each(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.device, non_blocking=True).view(-1, 1, 1, 1)
