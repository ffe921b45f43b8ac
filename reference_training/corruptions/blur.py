"""Blur: defocus, glass, motion, zoom, and (unseen in training) Gaussian.

Source of every definition: Hendrycks & Dietterich 2019, ImageNet-C.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .filters import (
    correlate,
    gather_pixels,
    gaussian_filter,
    gaussian_matrix,
    round_levels,
    separable,
    truncate_levels,
    zoom_factors,
    zoom_matrix,
)
from .random import Random


def gaussian_blur(images: Tensor, random: Random, sigma: float) -> Tensor:
    """Filter with a Gaussian, cut at 4 sigma, edges repeated.

    Args:
        images: (N, 3, H, W).
        random: not drawn from.
        sigma: the standard deviation in pixels.

    Returns:
        (N, 3, H, W).
    """
    return gaussian_filter(images, sigma)


def defocus_blur(images: Tensor, random: Random, radius: float, alias_blur: float) -> Tensor:
    """Correlate with a disk whose rim is smoothed, borders mirrored.

    Args:
        images: (N, 3, H, W).
        random: not drawn from.
        radius: the disk's radius in pixels.
        alias_blur: the standard deviation in pixels of the Gaussian on the disk.

    Returns:
        (N, 3, H, W).
    """
    return correlate(images, disk_kernel(radius, alias_blur, images.device))


@lru_cache(maxsize=64)
def disk_kernel(radius: float, alias_blur: float, device: torch.device) -> Tensor:
    """The smoothed disk of `defocus_blur`, without its empty margins.

    Args:
        radius: the disk's radius in pixels; beyond 8, grid and smoothing become larger.
        alias_blur: the standard deviation in pixels of the smoothing, 3x3 or 5x5 taps.
        device: where the kernel is kept.

    Returns:
        float64 (k, k), k odd, of sum one.
    """
    reach, taps = (8, 1) if radius <= 8 else (int(radius), 2)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (axis[:, None] ** 2 + axis**2 <= radius**2).to(torch.float64)
    smoothing = gaussian_matrix(len(axis), taps, alias_blur, "mirror", torch.device("cpu"))
    kernel = separable(disk / disk.sum(), smoothing, smoothing)
    margin = max(reach - int(radius) - taps, 0)
    return kernel[margin : len(axis) - margin, margin : len(axis) - margin].to(device)


def glass_blur(
    images: Tensor, random: Random, sigma: float, max_delta: int, iterations: int
) -> Tensor:
    """Blur, let each pixel copy a neighbour in scan order, blur again.

    Published as a swap, the exchange of two views of one array copies in fact, one way; that copy
    is what ImageNet-C contains, so it is what happens here.

    Args:
        images: (N, 3, H, W).
        random: N streams; offsets -max_delta .. max_delta - 1 in each direction.
        sigma: the standard deviation in pixels of both blurs.
        max_delta: how far a copied pixel may lie.
        iterations: how many scans.

    Returns:
        (N, 3, H, W).
    """
    images = truncate_levels(gaussian_filter(images, sigma)) / 255
    for _ in range(iterations):
        offsets = random.integers(-max_delta, max_delta, 2, *images.shape[-2:])
        images = gather_pixels(images, scan_sources(offsets, max_delta))
    return gaussian_filter(images, sigma)


def scan_sources(offsets: Tensor, max_delta: int) -> Tensor:
    """Where each pixel's value comes from, after one scan of copies.

    The scan goes up from row H - d to d + 1 and, inside, left from column W - d to d + 1, with
    pixel p taking what pixel p + offset(p) holds at that moment: its old value, unless it was
    visited before; then, what it had taken itself. The chains are followed by pointer doubling.

    Args:
        offsets: int64 (N, 2, H, W), row and column offsets in -d .. d - 1.
        max_delta: d.

    Returns:
        int64 (N, H, W): row W + column of the source in the image before the scan.
    """
    height, width = offsets.shape[-2:]
    rows = torch.arange(height, device=offsets.device)[:, None]
    columns = torch.arange(width, device=offsets.device)
    visited = (rows > max_delta) & (rows <= height - max_delta)
    visited = visited & (columns > max_delta) & (columns <= width - max_delta)
    here = rows * width + columns
    source = here + (offsets[:, 0] * width + offsets[:, 1]) * visited

    # A later place in the image is an earlier visit; pixels never visited are their own source.
    last = torch.maximum(source, here).flatten(1)
    while True:
        further = last.gather(1, last)
        if torch.equal(further, last):
            return source.flatten(1).gather(1, last).view_as(source)
        last = further


def motion_blur(images: Tensor, random: Random, radius: int, sigma: float) -> Tensor:
    """Smear along a line whose angle is drawn from U(-45, 45) degrees.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        radius: the line has 2 radius + 1 taps.
        sigma: of the one-sided Gaussian weights, in taps.

    Returns:
        (N, 3, H, W).
    """
    return smear(images, random.uniform(low=-45, high=45), radius, sigma)


def smear(images: Tensor, angle: Tensor, radius: int, sigma: float) -> Tensor:
    """Average an image shifted along a line, with one-sided Gaussian weights, edges repeated.

    Tap i of 2 radius + 1 weighs exp(-i^2 / (2 sigma^2)), normalised, and reads the pixel
    ceil(i cos(angle) - 1/2) to the right and ceil(i sin(angle) - 1/2) below. The result is rounded
    to 8 bits, since ImageMagick, which made ImageNet-C, handed over an 8-bit image.

    Args:
        images: (N, C, H, W).
        angle: (N,), degrees.
        radius, sigma: see `motion_blur`.

    Returns:
        (N, C, H, W), whole grey levels / 255.
    """
    height, width = images.shape[-2:]
    taps = torch.arange(2 * radius + 1, dtype=torch.float64, device=images.device)
    weights = torch.exp(-(taps**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    radians = torch.deg2rad(angle)[:, None]
    down = torch.ceil(taps * radians.sin() - 0.5).to(torch.int64)[:, :, None]
    right = torch.ceil(taps * radians.cos() - 0.5).to(torch.int64)[:, :, None]
    rows = (torch.arange(height, device=images.device) + down).clamp_(0, height - 1)
    columns = (torch.arange(width, device=images.device) + right).clamp_(0, width - 1)
    result = torch.zeros_like(images)
    for tap, weight in enumerate(weights):
        index = rows[:, tap, :, None] * width + columns[:, tap, None, :]
        result += weight * gather_pixels(images, index)
    return round_levels(result) / 255


def zoom_blur(images: Tensor, random: Random, stop: float, step: float) -> Tensor:
    """Average the image with enlargements of itself: (x + sum of zoom_z(x)) / (number of z + 1).

    Args:
        images: (N, 3, H, W).
        random: not drawn from.
        stop, step: the factors z are 1, 1 + step, ..., below `stop`.

    Returns:
        (N, 3, H, W).
    """
    factors = zoom_factors(stop, step)
    result = images.clone()
    for factor in factors:
        result += zoom(images, factor)
    return result / (len(factors) + 1)


def zoom(images: Tensor, factor: float) -> Tensor:
    """Enlarge images around their centre, bilinearly, and trim them to their size.

    Args:
        images: (N, C, H, W).
        factor: the enlargement, at least 1.

    Returns:
        (N, C, H, W).
    """
    rows, columns = (zoom_matrix(size, factor, images.device) for size in images.shape[-2:])
    return separable(images, rows, columns)
