"""Blur: defocus, glass, motion, zoom, and (unseen in training) Gaussian.

Source of every definition: Hendrycks & Dietterich 2019, ImageNet-C.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .filters import (
    FEW_TAPS,
    Number,
    correlate,
    correlate_by_fourier,
    gaussian_filter,
    gaussian_matrix,
    number_of_each,
    per_image,
    round_levels,
    transfer_function,
    truncate_levels,
)
from .random import Random
from .resampling import gather_pixels, pack_levels, unpack_levels, zoom, zoom_each, zoom_factors

_NEGLIGIBLE = 1e-7
_TAPS_AT_ONCE = 8  # of a smear on a GPU, whose memory holds as many copies


@per_image
def gaussian_blur(images: Tensor, random: Random, sigma: Number) -> Tensor:
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
    kernel = disk_kernel(radius, alias_blur)
    if kernel.numel() <= FEW_TAPS:
        return correlate(images, kernel.tolist(), "mirror")
    height, width = images.shape[-2:]
    reach = kernel.shape[0] // 2
    # Multiples of 32 are fast lengths of the transform.
    sides = (-(-(height + 2 * reach) // 32) * 32, -(-(width + 2 * reach) // 32) * 32)
    transfer = _disk_transfer(radius, alias_blur, sides, images.device, images.dtype)
    return correlate_by_fourier(images, transfer, sides)


@lru_cache(maxsize=64)
def _disk_transfer(
    radius: float,
    alias_blur: float,
    sides: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    return transfer_function(disk_kernel(radius, alias_blur), sides).to(device, dtype)


@lru_cache(maxsize=64)
def disk_kernel(radius: float, alias_blur: float) -> Tensor:
    """The smoothed disk of `defocus_blur`, without its empty margins.

    Args:
        radius: the disk's radius in pixels; beyond 8, grid and smoothing become larger.
        alias_blur: the standard deviation in pixels of the smoothing, 3x3 or 5x5 taps.

    Returns:
        float64 (k, k) on the CPU, k odd, of sum one.
    """
    reach, taps = (8, 1) if radius <= 8 else (int(radius), 2)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64, device="cpu")
    disk = (axis[:, None] ** 2 + axis**2 <= radius**2).to(torch.float64)
    smoothing = gaussian_matrix(len(axis), taps, alias_blur, "mirror", torch.device("cpu"))
    kernel = smoothing @ (disk / disk.sum()) @ smoothing.mT
    margin = max(reach - int(radius) - taps, 0)
    return kernel[margin : len(axis) - margin, margin : len(axis) - margin]


@per_image
def glass_blur(
    images: Tensor, random: Random, sigma: Number, max_delta: Number, iterations: Number
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
    pixels = pack_levels(truncate_levels(gaussian_filter(images, sigma)))
    if isinstance(max_delta, Tensor):
        pixels = _scanned_together(pixels, random, max_delta, number_of_each(1, iterations))
    else:
        for _ in range(int(iterations)):
            delta = int(max_delta)
            offsets = random.integer_field(-delta, delta, 2, *images.shape[-2:])
            pixels = gather_pixels(pixels, scan_sources(offsets, delta))
    return gaussian_filter(unpack_levels(pixels).to(images.dtype).div_(255), sigma)


def _scanned_together(
    pixels: Tensor, random: Random, max_delta: Tensor, iterations: list[float]
) -> Tensor:
    """`glass_blur`'s scans of all iterations followed together: few launches, as a GPU needs."""
    most = int(max(iterations))
    # An image with fewer scans than others has further ones that move nothing.
    scans = torch.arange(most, device="cpu")[:, None] < torch.tensor(iterations, device="cpu")
    deltas = (max_delta.flatten() * scans).view(-1, 1, 1, 1).to(torch.int32).to(pixels.device)
    offsets = random.streams(most).integer_field(-deltas, deltas, 2, *pixels.shape[1:])
    sources = scan_sources(offsets, deltas[:, 0]).view(most, *pixels.shape)
    for number, scan in enumerate(sources.unbind()):
        pixels = gather_pixels(pixels, scan - number * pixels.numel())
    return pixels


def scan_sources(offsets: Tensor, max_delta: int | Tensor) -> Tensor:
    """Where each pixel's value comes from, after one scan of copies.

    The scan goes up from row H - d to d + 1 and, inside, left from column W - d to d + 1, with
    pixel p taking what pixel p + offset(p) holds at that moment: its old value, unless it was
    visited before; then, what it had taken itself. The chains are followed by pointer doubling.

    Args:
        offsets: int32 (N, 2, H, W), row and column offsets in -d .. d - 1.
        max_delta: d, or int32 (N, 1, 1), one for each image.

    Returns:
        int32 (N, H, W): the source's (n H + row) W + column in the images before the scan.
    """
    count, _, height, width = offsets.shape
    rows = torch.arange(height, dtype=torch.int32, device=offsets.device)[:, None]
    columns = torch.arange(width, dtype=torch.int32, device=offsets.device)
    visited = (rows > max_delta) & (rows <= height - max_delta)
    visited = visited & (columns > max_delta) & (columns <= width - max_delta)
    here = torch.arange(count * height * width, dtype=torch.int32, device=offsets.device)
    here = here.view(count, height, width)
    source = (offsets[:, 0] * width).add_(offsets[:, 1]).mul_(visited.to(torch.int32)).add_(here)

    # A later place in the image is an earlier visit; pixels never visited are their own source.
    last = torch.maximum(source, here)
    for _ in range((height * width).bit_length()):
        further = gather_pixels(last, last)
        # On a GPU the few rounds that nothing needs any more are cheaper than to ask for them.
        if last.device.type == "cpu" and torch.equal(further, last):
            break
        last = further
    return gather_pixels(source, last)


@per_image
def motion_blur(images: Tensor, random: Random, radius: Number, sigma: Number) -> Tensor:
    """Smear along a line whose angle is drawn from U(-45, 45) degrees, and round to 8 bits.

    Rounded, since ImageMagick, which made ImageNet-C, handed over an 8-bit image.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        radius: the line has 2 radius + 1 taps.
        sigma: of the one-sided Gaussian weights, in taps.

    Returns:
        (N, 3, H, W), whole grey levels / 255.
    """
    blurred = round_levels(motion_blur_unrounded(images, random, radius, sigma))
    return blurred.to(images.dtype).div_(255)


@per_image
def motion_blur_unrounded(images: Tensor, random: Random, radius: Number, sigma: Number) -> Tensor:
    """Smear along a line whose angle is drawn from U(-45, 45) degrees.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        radius, sigma: see `motion_blur`.

    Returns:
        (N, 3, H, W).
    """
    return smear(images, random.uniform(low=-45, high=45), radius, sigma)


def smear(images: Tensor, angle: Tensor, radius: Number, sigma: Number) -> Tensor:
    """Average an image shifted along a line, with one-sided Gaussian weights, edges repeated.

    Tap i of 2 radius + 1 weighs exp(-i^2 / (2 sigma^2)), normalised, and reads the pixel
    ceil(i cos(angle) - 1/2) to the right and ceil(i sin(angle) - 1/2) below.

    Args:
        images: (N, C, H, W).
        angle: (N,), degrees, on the CPU.
        radius, sigma: of the line, see above.

    Returns:
        (N, C, H, W).
    """
    each = (number_of_each(len(images), number) for number in (radius, sigma))
    lines = [_line_weights(int(reach), wide) for reach, wide in zip(*each, strict=True)]
    taps = torch.arange(max(map(len, lines)), dtype=torch.float64, device="cpu")
    ways = torch.stack([torch.deg2rad(angle).sin(), torch.deg2rad(angle).cos()], dim=1)
    shifts = torch.ceil(taps[:, None] * ways[:, None] - 0.5).to(torch.int64)
    add = _add_one_by_one if images.device.type == "cpu" else _add_together
    return add(images, shifts, lines)


@lru_cache(maxsize=64)
def _line_weights(radius: int, sigma: float) -> tuple[float, ...]:
    taps = torch.arange(2 * radius + 1, dtype=torch.float64, device="cpu")
    weights = torch.exp(-(taps**2) / (2 * sigma**2))
    weights /= weights.sum()
    # What the last taps of a long line add is too little for an 8-bit image to show.
    return tuple(weights[weights > _NEGLIGIBLE].tolist())


def _add_one_by_one(images: Tensor, shifts: Tensor, lines: list[tuple[float, ...]]) -> Tensor:
    """`smear` by views of each padded image: few bytes, which is what a CPU's time goes into."""
    height, width = images.shape[-2:]
    result = torch.zeros_like(images)
    for image, blurred, shift, line in zip(images, result, shifts.tolist(), lines, strict=True):
        down, right = (max(0, max(reach)) for reach in zip(*shift, strict=True))
        up, left = (max(0, -min(reach)) for reach in zip(*shift, strict=True))
        padded = F.pad(image[None], (left, right, up, down), mode="replicate")[0]
        for weight, (row, column) in zip(line, shift, strict=False):
            top, first = up + row, left + column
            blurred.add_(padded[:, top : top + height, first : first + width], alpha=weight)
    return result


def _add_together(images: Tensor, shifts: Tensor, lines: list[tuple[float, ...]]) -> Tensor:
    """`smear` by one copy of all images for some taps: few launches, which a GPU's goes into."""
    device, (count, taps, _) = images.device, shifts.shape
    rows, columns = (
        (torch.arange(size, device="cpu") + shifts[..., axis, None]).clamp_(0, size - 1).to(device)
        for axis, size in enumerate(images.shape[-2:])
    )  # (N, taps, size): edges are repeated
    # Images with fewer taps than others add their first pixels with the weight zero.
    weights = torch.zeros(taps, count, 1, 1, 1, dtype=torch.float64, device="cpu")
    for at, line in enumerate(lines):
        weights[: len(line), at, 0, 0, 0] = torch.tensor(line, dtype=torch.float64, device="cpu")
    weights = weights.to(images.dtype).to(device)
    each = torch.arange(count, device=device)[:, None, None, None]
    result = torch.zeros_like(images)
    for first in range(0, taps, _TAPS_AT_ONCE):
        some = slice(first, first + _TAPS_AT_ONCE)
        # (N, taps, H, W, C), as an index stands in front of a slice.
        moved = images[each, :, rows[:, some, :, None], columns[:, some, None, :]]
        for weight, part in zip(weights[some], moved.unbind(1), strict=True):
            result.addcmul_(part.movedim(-1, 1), weight)
    return result


@per_image
def zoom_blur(images: Tensor, random: Random, stop: Number, step: Number) -> Tensor:
    """Average the image with enlargements of itself: (x + sum of zoom_z(x)) / (number of z + 1).

    Args:
        images: (N, 3, H, W).
        random: not drawn from.
        stop, step: the factors z are 1, 1 + step, ..., below `stop`.

    Returns:
        (N, 3, H, W).
    """
    if isinstance(stop, Tensor):
        rows = zip(stop.flatten().tolist(), number_of_each(len(images), step), strict=True)
        return _zoomed_together(images, [zoom_factors(*row) for row in rows])
    factors = zoom_factors(stop, step)
    # Transposed, as `zoom` leaves its results in memory.
    transposed = images.mT.clone(memory_format=torch.contiguous_format)
    for factor in factors:
        transposed.add_(zoom(images, factor).mT)
    return (transposed / (len(factors) + 1)).mT


def _zoomed_together(images: Tensor, factors: list[tuple[float, ...]]) -> Tensor:
    """`zoom_blur` of all enlargements together: few launches, which a GPU's time goes into."""
    device = images.device
    rounds = [
        [at for at, each in enumerate(factors) if len(each) > count]
        for count in range(max(map(len, factors)))
    ]
    pairs = [(at, factors[at][count]) for count, owners in enumerate(rounds) for at in owners]
    owners, all_factors = zip(*pairs, strict=True)
    enlarged = zoom_each(images, owners, all_factors).split([len(each) for each in rounds])
    total = images.clone()
    places = torch.tensor(owners, device="cpu").to(device).split([len(each) for each in rounds])
    for place, each in zip(places, enlarged, strict=True):
        total.index_add_(0, place, each)
    counts = torch.tensor([len(each) + 1 for each in factors], dtype=images.dtype, device="cpu")
    return total.div_(counts[:, None, None, None].to(device))
