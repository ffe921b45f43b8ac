"""Digital and colour: brightness, contrast, elastic, pixelate, JPEG, and (unseen) saturate.

Source of every definition: Hendrycks & Dietterich 2019, ImageNet-C.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .filters import gaussian_filter, sample_bilinear
from .random import Random


def brightness(images: Tensor, random: Random, shift: float) -> Tensor:
    """Raise HSV's value: RGB V' / V with V = max(R, G, B), V' = clip(V + shift, 0, 1).

    Args:
        images: (N, 3, H, W).
        random: not drawn from.
        shift: added to V.

    Returns:
        (N, 3, H, W); a black pixel becomes the grey V'.
    """
    value = images.amax(dim=1, keepdim=True)
    raised = (value + shift).clamp_(0, 1)
    return torch.where(value > 0, images * (raised / value), raised)


def saturate(images: Tensor, random: Random, gain: float, shift: float) -> Tensor:
    """Change HSV's saturation: V - (V - RGB) S' / S with S' = clip(gain S + shift, 0, 1).

    Args:
        images: (N, 3, H, W).
        random: not drawn from.
        gain, shift: applied to S = (max - min) / max.

    Returns:
        (N, 3, H, W); grey has no hue, which HSV writes as red, so a shift makes it reddish.
    """
    value = images.amax(dim=1, keepdim=True)
    spread = value - images.amin(dim=1, keepdim=True)
    saturation = torch.where(value > 0, spread / value, 0.0)
    target = (gain * saturation + shift).clamp_(0, 1)
    coloured = value - (value - images) * (target / saturation)
    faded = value * (1 - target)
    reddish = torch.cat([value, faded, faded], dim=1)
    return torch.where(spread > 0, coloured, reddish)


def contrast(images: Tensor, random: Random, gain: float) -> Tensor:
    """Pull each channel to its mean over the image: mean + gain (x - mean).

    Args:
        images: (N, 3, H, W).
        random: not drawn from.
        gain: what is left of the contrast.

    Returns:
        (N, 3, H, W).
    """
    mean = images.mean(dim=(2, 3), keepdim=True)
    return mean + gain * (images - mean)


def elastic_transform(
    images: Tensor, random: Random, alpha: float, sigma: float, affine: float
) -> Tensor:
    """Warp by a random affine map, then displace each pixel by smooth noise.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        alpha: the displacement's scale in pixels: alpha gaussian(U(-1, 1)).
        sigma: the standard deviation in pixels of that Gaussian.
        affine: how far, in pixels, three reference points move in each coordinate, U(-a, a).

    Returns:
        (N, 3, H, W), both steps bilinear.
    """
    height, width = images.shape[-2:]
    y = torch.arange(height, dtype=torch.float64, device=images.device)[:, None].expand(-1, width)
    x = torch.arange(width, dtype=torch.float64, device=images.device).expand(height, -1)

    inverse = inverse_affine(height, width, random.uniform(3, 2, low=-affine, high=affine))
    sources = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ inverse[:, None]
    images = sample_bilinear(images, sources[..., 1], sources[..., 0], "mirror")

    noise = random.uniform(2, height, width, low=-1, high=1)
    shift = alpha * gaussian_filter(noise, sigma, truncate=3, border="reflect")
    return sample_bilinear(images, y + shift[:, 1], x + shift[:, 0], "reflect")


def inverse_affine(height: int, width: int, moves: Tensor) -> Tensor:
    """The map from an affinely warped image back to its source, given three points' moves.

    With c = (height // 2, width // 2) and s = min(height, width) // 3 the points, as (x, y), are
    c + s, (c_x + s, c_y - s) and c - s.

    Args:
        height, width: of the image, pixels.
        moves: (N, 3, 2), the points' displacements (x, y) in pixels.

    Returns:
        float64 (N, 3, 2): [x, y, 1] of a target pixel times it gives the source's (x, y).
    """
    a, b, s = height // 2, width // 2, min(height, width) // 3
    points = moves.new_tensor([[a + s, b + s], [a + s, b - s], [a - s, b - s]])
    moved = points + moves
    homogeneous = torch.cat([moved, torch.ones_like(moved[..., :1])], dim=-1)
    return torch.linalg.solve(homogeneous, points.expand_as(moved))


def pixelate(images: Tensor, random: Random, scale: float) -> Tensor:
    """Shrink to int(scale size) pixels and enlarge again, both by Pillow's box filter, bit-exact.

    Args:
        images: (N, 3, H, W).
        random: not drawn from.
        scale: the side's shrinkage.

    Returns:
        (N, 3, H, W).
    """
    height, width = images.shape[-2:]
    levels = (images * 255).round_()
    for rows, columns in (
        ((height, int(height * scale)), (width, int(width * scale))),
        ((int(height * scale), height), (int(width * scale), width)),
    ):
        levels = _box_levels(levels @ box_matrix(*columns, images.device).mT)
        levels = _box_levels(box_matrix(*rows, images.device) @ levels)
    return levels / 255


_BOX_UNIT = 1 << 22


def _box_levels(sums: Tensor) -> Tensor:
    """Pillow's fixed-point sums back to grey levels; whole numbers below 2^53, hence exact."""
    return sums.add_(_BOX_UNIT // 2).div_(_BOX_UNIT, rounding_mode="floor")


@lru_cache(maxsize=64)
def box_matrix(size: int, target: int, device: torch.device) -> Tensor:
    """Pillow's box resampling of an axis, in its own fixed-point arithmetic.

    Each target pixel averages, with equal weights, the pixels whose centres its box covers.

    Args:
        size, target: lengths before and after, pixels.
        device: where the matrix is kept.

    Returns:
        float64 (target, size) of whole numbers, in units of 2^-22.
    """
    scale = size / target
    centres = (torch.arange(target, dtype=torch.float64)[:, None] + 0.5) * scale
    pixels = torch.arange(size, dtype=torch.float64)
    distances = (pixels - centres + 0.5) * (1 / max(scale, 1))
    covered = (distances > -0.5) & (distances <= 0.5)
    # A second test, of the rim alone, since Pillow's rounding makes the two differ there.
    reach = 0.5 * max(scale, 1)
    covered &= pixels >= torch.floor(centres - reach + 0.5)
    covered &= pixels < torch.floor(centres + reach + 0.5)
    weights = covered / covered.sum(dim=1, keepdim=True, dtype=torch.float64)
    return torch.floor(weights * _BOX_UNIT + 0.5).to(device)


def jpeg_compression(images: Tensor, random: Random, quality: int) -> Tensor:
    """Encode as JPEG with 4:2:0 chroma and decode, by Pillow: one result for every device.

    Args:
        images: (N, 3, H, W).
        random: not drawn from.
        quality: 1 to 100.

    Returns:
        (N, 3, H, W).
    """
    levels = (images * 255).round_().to(torch.uint8).movedim(1, -1).cpu().numpy()
    decoded = np.stack([_jpeg_levels(image, quality) for image in levels])
    return torch.from_numpy(decoded).movedim(-1, 1).to(images) / 255


def _jpeg_levels(levels: np.ndarray, quality: int) -> np.ndarray:
    with io.BytesIO() as file:
        Image.fromarray(levels).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))
