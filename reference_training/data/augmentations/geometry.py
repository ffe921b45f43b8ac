"""AugMix's operations on positions: rotate, shear, translate.

Pillow's affine transform with bilinear resampling: the output pixel whose centre is (x, y) is read
at (a x + b y + c, d x + e y + f); what lies outside the image is black, without a seam. Images are
uint8 (N, 3, H, W); levels and signs, float64 (N,) on the CPU, are AugMix's strengths from 0 to 10
and their directions, ±1.

Source: Hendrycks et al. 2020, AugMix (operations and ranges); Pillow (their definitions).
"""

from __future__ import annotations

import torch
from torch import Tensor

from reference_training.corruptions.resampling import pack_levels, unpack_levels


def rotate(images: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """Turn by ± ⌊30 level / 10⌋ degrees about the centre; arguments as in `affine`."""
    angle = -torch.deg2rad(signs * (levels * 30 / 10).floor())
    cosine, sine = angle.cos().round(decimals=15), angle.sin().round(decimals=15)
    x, y = images.shape[3] / 2, images.shape[2] / 2
    right = -x * cosine - y * sine + x
    down = x * sine - y * cosine + y
    return affine(images, torch.stack([cosine, sine, right, -sine, cosine, down], 1))


def shear_x(images: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """Move each row by ± 0.3 level / 10 of its height y; arguments as in `affine`."""
    return affine(images, _matrix(1, signs * (levels * 0.3 / 10)))


def shear_y(images: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """Move each column by ± 0.3 level / 10 of its place x; arguments as in `affine`."""
    return affine(images, _matrix(3, signs * (levels * 0.3 / 10)))


def translate_x(images: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """Move by ± ⌊(W / 3) level / 10⌋ pixels; arguments as in `affine`."""
    return affine(images, _matrix(2, signs * (levels * (images.shape[3] / 3) / 10).floor()))


def translate_y(images: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """Move by ± ⌊(H / 3) level / 10⌋ pixels; arguments as in `affine`."""
    return affine(images, _matrix(5, signs * (levels * (images.shape[2] / 3) / 10).floor()))


def _matrix(place: int, values: Tensor) -> Tensor:
    """Identity matrices with other numbers at one place: float64 (N, 6)."""
    matrices = values.new_tensor([1, 0, 0, 0, 1, 0]).repeat(len(values), 1)
    matrices[:, place] = values
    return matrices


def affine(images: Tensor, matrices: Tensor) -> Tensor:
    """Read images at other places.

    Args:
        images: uint8 (N, 3, H, W).
        matrices: float64 (N, 6) on the CPU: a, b, c, d, e, f.

    Returns:
        uint8 (N, 3, H, W), truncated.
    """
    height, width = images.shape[2:]
    device = images.device
    a, b, c, d, e, f = matrices.to(device, non_blocking=True)[:, :, None, None].unbind(1)
    across = torch.arange(width, dtype=torch.float64, device=device) + 0.5
    down = torch.arange(height, dtype=torch.float64, device=device)[:, None] + 0.5
    x = a * across + b * down + c
    y = d * across + e * down + f
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x - 0.5, y - 0.5
    left, top = x.floor(), y.floor()
    packed = pack_levels(images.to(torch.int32)).flatten(1)

    def row(at: Tensor) -> Tensor:
        first = at.clamp(0, height - 1).long() * width

        def pixel(column: Tensor) -> Tensor:
            index = (first + column.clamp(0, width - 1).long()).flatten(1)
            return unpack_levels(packed.gather(1, index).view(x.shape)).double()

        start = pixel(left)
        return start + (pixel(left + 1) - start) * (x - left)[:, None]

    upper = row(top)
    # Pillow takes no lower row where there is none, which clamping the index amounts to.
    values = upper + (row(top + 1) - upper) * (y - top)[:, None]
    return torch.where(inside[:, None], values, 0.0).to(torch.uint8)
