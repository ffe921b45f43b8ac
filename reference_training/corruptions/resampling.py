"""What several families share: pixels moved, enlarged, and read between their places.

For the images' dtype, and why nothing depends on their number, see `filters`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .filters import Border


@lru_cache(maxsize=64)
def zoom_factors(stop: float, step: float) -> tuple[float, ...]:
    """The factors 1, 1 + step, ... of a zoom blur, with `np.arange`'s own rounding at the end."""
    return tuple(np.arange(1, stop, step).tolist())


def zoom(images: Tensor, factor: float, *, whole: bool = False) -> Tensor:
    """Enlarge the middle of images, bilinearly, corners on corners.

    The central n = ceil(size / factor) pixels of an axis are sampled at round(n factor) positions.

    Args:
        images: (N, C, H, W).
        factor: the enlargement, at least 1.
        whole: whether all samples are kept, or of each axis as many central ones as it has pixels.

    Returns:
        (N, C, H, W), or somewhat larger if whole; the transposed of contiguous memory.

    Source: Hendrycks & Dietterich 2019, ImageNet-C (`scipy.ndimage.zoom` of order 1).
    """
    for _ in ("rows", "columns"):
        images = images.contiguous()
        lower, weight = _zoom_taps(images.shape[-2], factor, whole, images.device, images.dtype)
        above = images.index_select(-2, lower + 1)
        images = images.index_select(-2, lower).lerp_(above, weight).mT
    return images


@lru_cache(maxsize=256)
def _zoom_taps(
    size: int, factor: float, whole: bool, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The first of two neighbours that each sample lies between, and the second one's weight."""
    cropped = math.ceil(size / factor)
    enlarged = round(cropped * factor)
    first = 0 if whole else (enlarged - size) // 2
    samples = torch.arange(first, enlarged if whole else first + size, device="cpu")
    positions = samples.double() * (cropped - 1) / max(enlarged - 1, 1) + (size - cropped) // 2
    lower = positions.floor().clamp_(0, size - 2).to(torch.int64)
    return lower.to(device), (positions - lower)[:, None].to(device, dtype)


def zoom_each(
    images: Tensor, owners: Sequence[int], factors: Sequence[float], *, whole: bool = False
) -> Tensor:
    """`zoom` of images by factors of their own, in a few launches.

    Args:
        images: (N, C, H, W).
        owners: P times which image.
        factors: P times the enlargement.
        whole: as of `zoom`; the lesser enlargements' edges are repeated.

    Returns:
        (P, C, H, W), or larger if whole; the transposed of contiguous memory.
    """
    device, dtype = images.device, images.dtype
    at = torch.tensor(owners, device="cpu").to(device)
    distinct = tuple(dict.fromkeys(factors))
    which = torch.tensor([distinct.index(each) for each in factors], device="cpu").to(device)
    for _ in ("rows", "columns"):
        lower, weight = _stacked_taps(images.shape[2], distinct, whole, device, dtype)
        lower, weight = lower[which], weight[which]
        # (P, size, C, the other axis): the rows of each image, then its columns.
        near, far = images[at[:, None], :, lower], images[at[:, None], :, lower + 1]
        images = near.lerp_(far, weight[..., None]).permute(0, 2, 3, 1)
        at = torch.arange(len(which), device=device)
    return images


@lru_cache(maxsize=16)
def _stacked_taps(
    size: int, factors: tuple[float, ...], whole: bool, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`_zoom_taps` of each factor, the shorter ones' last repeated: (F, length), (F, length, 1)."""
    taps = [_zoom_taps(size, factor, whole, device, dtype) for factor in factors]
    longest = max(len(lower) for lower, _ in taps)
    last = [torch.arange(longest, device=device).clamp_(max=len(lower) - 1) for lower, _ in taps]
    chosen = [(lower[at], weight[at]) for (lower, weight), at in zip(taps, last, strict=True)]
    return torch.stack([lower for lower, _ in chosen]), torch.stack(
        [weight for _, weight in chosen]
    )


def gather_pixels(planes: Tensor, index: Tensor) -> Tensor:
    """Read, for each pixel of each image, the pixel that `index` names.

    Args:
        planes: (N, H, W), one value for each pixel.
        index: int32 (N, H, W): positions in the batch, (n H + row) W + column.

    Returns:
        (N, H, W).
    """
    return planes.reshape(-1).index_select(0, index.reshape(-1)).view(planes.shape)


def pack_levels(levels: Tensor) -> Tensor:
    """A pixel's three 8-bit channels in one number, so that moving it is one copy.

    Args:
        levels: whole numbers (N, 3, H, W), 0..255.

    Returns:
        int32 (N, H, W).
    """
    red, green, blue = levels.to(torch.int32).unbind(1)
    return red + (green << 8) + (blue << 16)


def unpack_levels(packed: Tensor) -> Tensor:
    """The channels that `pack_levels` packed.

    Args:
        packed: int32 (N, H, W).

    Returns:
        uint8 (N, 3, H, W).
    """
    channels = packed.view(torch.uint8).unflatten(-1, (-1, 4))
    return channels[..., :3].movedim(-1, 1).contiguous()


def sample_bilinear(images: Tensor, places: Tensor, border: Border) -> Tensor:
    """Read images between their pixels, linearly in both directions.

    Args:
        images: (N, C, H, W).
        places: x and y in pixels, (N, H, W, 2), overwritten; pixel centres are whole numbers.
        border: "mirror" or "reflect", what lies outside, see `fold_index`.

    Returns:
        (N, C, H, W).
    """
    size = places.new_tensor([images.shape[-1], images.shape[-2]])
    corners = border == "mirror"
    # grid_sample's -1 and 1 are the outer pixels' centres, or else their outer edges.
    if corners:
        grid = places.mul_(2 / (size - 1).clamp_(min=1)).sub_(1)
    else:
        grid = places.mul_(2 / size).add_(1 / size - 1)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=corners)
