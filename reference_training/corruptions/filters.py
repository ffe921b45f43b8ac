"""What several families share: borders, separable filters, resampling, eight-bit levels.

Images are float64 (N, C, H, W) in [0, 1]. Float64, as in the definition: the result is truncated
to 8 bits, and that makes the rounding of float32, which depends on the batch's size, visible.
Constant matrices and kernels are built once for each device and kept.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Border = Literal["nearest", "reflect", "mirror"]
_PADDING = {"nearest": "replicate", "mirror": "reflect"}

# Flat regions land on whole grey levels up to the last bit of a sum, where truncation would be
# decided by the order of summation. A millionth of a level decides for the whole level instead.
_UNDECIDED = 1e-6


def truncate_levels(images: Tensor) -> Tensor:
    """Grey levels 0..255 (still float) by truncation, as ImageNet-C's final `np.uint8(255 x)`.

    Args:
        images: any shape, clipped to [0, 1] here.

    Returns:
        floor(255 x), of the images' dtype and shape.
    """
    return images.clamp(0, 1).mul_(255).add_(_UNDECIDED).floor_()


def round_levels(images: Tensor) -> Tensor:
    """Grey levels 0..255 (still float) by rounding to the nearest, halves up.

    Args:
        images: any shape, clipped to [0, 1] here.

    Returns:
        floor(255 x + 1/2), of the images' dtype and shape.
    """
    return images.clamp(0, 1).mul_(255).add_(0.5 + _UNDECIDED).floor_()


def fold_index(index: Tensor, size: int, border: Border) -> Tensor:
    """Map positions outside an axis onto it, by SciPy's border names.

    nearest: aaa|abcd|ddd; reflect: cba|abcd|dcb; mirror (OpenCV's reflect-101): dcb|abcd|cba.

    Args:
        index: int64, any shape.
        size: the axis' length in pixels.
        border: the rule.

    Returns:
        int64 in 0..size-1, of the index' shape.
    """
    if border == "nearest":
        return index.clamp(0, size - 1)
    if border == "reflect":
        index = index % (2 * size)
        return torch.minimum(index, 2 * size - 1 - index)
    period = max(2 * size - 2, 1)
    index = index % period
    return torch.minimum(index, period - index)


def gaussian_weights(radius: int, sigma: float) -> Tensor:
    """The 2 radius + 1 taps of a Gaussian, exp(-x^2 / (2 sigma^2)), of sum one; float64, CPU."""
    if radius == 0:
        return torch.ones(1, dtype=torch.float64)
    positions = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-(positions**2) / (2 * sigma**2))
    return weights / weights.sum()


@lru_cache(maxsize=256)
def gaussian_matrix(
    size: int, radius: int, sigma: float, border: Border, device: torch.device
) -> Tensor:
    """The (size, size) matrix that filters an axis with a Gaussian, its border rule included.

    Args:
        size: the axis' length in pixels.
        radius: the kernel has 2 radius + 1 taps.
        sigma: the standard deviation in pixels.
        border: the border rule, see `fold_index`.
        device: where the matrix is kept.

    Returns:
        float64 (size, size); rows sum to one.
    """
    offsets = torch.arange(-radius, radius + 1)
    sources = fold_index(torch.arange(size)[:, None] + offsets, size, border)
    weights = gaussian_weights(radius, sigma).expand(size, -1)
    matrix = torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, sources, weights)
    return matrix.to(device)


@lru_cache(maxsize=256)
def zoom_matrix(size: int, factor: float, device: torch.device) -> Tensor:
    """The (size, size) matrix that enlarges an axis around its centre and trims it to its length.

    The central n = ceil(size / factor) pixels are sampled at round(n factor) positions, endpoints
    on endpoints, linearly; the central `size` samples are kept.

    Args:
        size: the axis' length in pixels.
        factor: the enlargement, at least 1.
        device: where the matrix is kept.

    Returns:
        float64 (size, size); rows sum to one.

    Source: Hendrycks & Dietterich 2019, ImageNet-C (`scipy.ndimage.zoom` of order 1).
    """
    cropped = math.ceil(size / factor)
    enlarged = round(cropped * factor)
    first = (enlarged - size) // 2
    samples = torch.arange(first, first + size, dtype=torch.float64)
    positions = samples * (cropped - 1) / max(enlarged - 1, 1) + (size - cropped) // 2
    distances = (positions[:, None] - torch.arange(size, dtype=torch.float64)).abs()
    return (1 - distances).clamp(min=0).to(device)


@lru_cache(maxsize=64)
def zoom_factors(stop: float, step: float) -> tuple[float, ...]:
    """The factors 1, 1 + step, ... of a zoom blur, with `np.arange`'s own rounding at the end."""
    return tuple(np.arange(1, stop, step).tolist())


def separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply one matrix along the rows and one along the columns: R X C^T.

    Args:
        images: (..., H, W).
        rows: (H', H), acts on the vertical axis.
        columns: (W', W), acts on the horizontal axis.

    Returns:
        (..., H', W').
    """
    return rows @ (images @ columns.mT)


def gaussian_filter(
    images: Tensor, sigma: float, *, truncate: float = 4.0, border: Border = "nearest"
) -> Tensor:
    """Filter each channel with a Gaussian; the defaults are scikit-image's.

    Args:
        images: (..., H, W).
        sigma: the standard deviation in pixels; 0 changes nothing.
        truncate: the kernel ends at int(truncate sigma + 1/2) pixels, as SciPy's does.
        border: the border rule, see `fold_index`.

    Returns:
        (..., H, W).
    """
    radius = int(truncate * sigma + 0.5)
    rows, columns = (
        gaussian_matrix(size, radius, sigma, border, images.device) for size in images.shape[-2:]
    )
    return separable(images, rows, columns)


def correlate(images: Tensor, kernel: Tensor, border: Border = "mirror") -> Tensor:
    """Correlate each channel with a kernel of odd sides, as OpenCV's filter2D.

    Args:
        images: (N, C, H, W).
        kernel: (kh, kw), of the images' dtype, on their device.
        border: "mirror" (OpenCV's default) or "nearest".

    Returns:
        (N, C, H, W).
    """
    vertical, horizontal = kernel.shape[0] // 2, kernel.shape[1] // 2
    margins = (horizontal, horizontal, vertical, vertical)
    padded = F.pad(images.flatten(0, 1)[:, None], margins, mode=_PADDING[border])
    return F.conv2d(padded, kernel[None, None]).view(images.shape)


def gather_pixels(images: Tensor, index: Tensor) -> Tensor:
    """Read, for each pixel, the pixel that `index` names, in all channels.

    Args:
        images: (N, C, H, W).
        index: int64 (N, H, W), row W + column.

    Returns:
        (N, C, H, W).
    """
    count, channels = images.shape[:2]
    flat = index.reshape(count, 1, -1).expand(-1, channels, -1)
    return images.reshape(count, channels, -1).gather(2, flat).view(images.shape)


def sample_bilinear(images: Tensor, y: Tensor, x: Tensor, border: Border) -> Tensor:
    """Read images between their pixels, linearly in both directions.

    Args:
        images: (N, C, H, W).
        y, x: positions in pixels, (N, H, W); pixel centres are whole numbers.
        border: what lies outside, see `fold_index`.

    Returns:
        (N, C, H, W).
    """
    height, width = images.shape[-2:]
    top, left = y.floor(), x.floor()
    result = torch.zeros_like(images)
    for below in (0, 1):
        row_weight = y - top if below else 1 - (y - top)
        rows = fold_index(top.to(torch.int64) + below, height, border)
        for right in (0, 1):
            weight = row_weight * (x - left if right else 1 - (x - left))
            columns = fold_index(left.to(torch.int64) + right, width, border)
            result += weight[:, None] * gather_pixels(images, rows * width + columns)
    return result
