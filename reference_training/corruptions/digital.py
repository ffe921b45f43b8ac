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

from .filters import gaussian_filter
from .random import Random
from .resampling import sample_bilinear


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
    # Of the values above 0 the least is 1/255.
    return images * (raised / value.clamp(min=1 / 255)) + torch.where(value > 0, 0.0, raised)


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
    # In float64 a sum of float32 numbers in [0, 1] has no rounding, hence no order.
    mean = images.mean(dim=(2, 3), keepdim=True, dtype=torch.float64).to(images.dtype)
    return (images - mean).mul_(gain).add_(mean)


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
    inverse = inverse_affine(height, width, random.uniform(3, 2, low=-affine, high=affine))
    places = affine_sources(inverse, height, width, images.device).to(images.dtype)
    images = sample_bilinear(images, places, "mirror")
    return _displace(images, random, 1, alpha, sigma)


def elastic_displacement(images: Tensor, random: Random, alpha: float) -> Tensor:
    """Displace each pixel by alpha gaussian(U(-a, a)) with a = H / 200 and sigma = H / 100.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        alpha: the displacement's scale.

    Returns:
        (N, 3, H, W), bilinear.

    Source: the public package `imagecorruptions`.
    """
    height = images.shape[-2]
    return _displace(images, random, height / 200, alpha, height / 100)


def _displace(
    images: Tensor, random: Random, amplitude: float, alpha: float, sigma: float
) -> Tensor:
    height, width = images.shape[-2:]
    noise = random.uniform_field(2, height, width, low=-amplitude, high=amplitude)
    shift = gaussian_filter(noise.to(images.dtype), sigma, truncate=3, border="reflect").mul_(alpha)
    shift[:, 0] += torch.arange(width, device=images.device)
    shift[:, 1] += torch.arange(height, device=images.device)[:, None]
    return sample_bilinear(images, shift.movedim(1, -1).contiguous(), "reflect")


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
    # In float32, as OpenCV is given them: a 1/32 of a pixel may hang on it.
    moved = (points.float() + moves.float()).to(moves.dtype)
    homogeneous = torch.cat([moved, torch.ones_like(moved[..., :1])], dim=-1)
    return torch.linalg.solve(homogeneous, points.expand_as(moved))


def affine_sources(inverse: Tensor, height: int, width: int, device: torch.device) -> Tensor:
    """Where each pixel of an affinely warped image comes from, on OpenCV 4's grid of 1/32 pixels.

    Args:
        inverse: float64 (N, 3, 2) on the CPU, see `inverse_affine`.
        height, width: of the image, pixels.
        device: of the result.

    Returns:
        float32 (N, H, W, 2): x and y in pixels.

    Source: OpenCV 4's warpAffine, which made ImageNet-C: fixed-point sums in units of 2^-10
    pixels, rounded to 1/32.
    """
    unit = inverse * 1024
    x = torch.arange(width, dtype=torch.float64)[:, None]
    y = torch.arange(height, dtype=torch.float64)[:, None]
    along_x = (x * unit[:, :1]).round_().to(torch.int32).to(device)
    along_y = (y * unit[:, 1:2] + unit[:, 2:]).round_().to(torch.int32).to(device)
    places = along_y.add_(16)[:, :, None] + along_x[:, None]
    return places.bitwise_right_shift_(5) / 32


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
    for size in (width, height):  # along the columns first, as Pillow goes
        levels = _box_average(levels.mT.contiguous(), box_spans(size, int(size * scale)))
    # Enlarged, each box covers the centre of one pixel.
    down, right = (
        box_spans(int(size * scale), size)[0].to(images.device) for size in (height, width)
    )
    return levels.div_(255).index_select(-1, right).index_select(-2, down)


def _box_average(levels: Tensor, spans: tuple[Tensor, Tensor]) -> Tensor:
    """Means over spans of rows, halves rounded up: sums of whole numbers, hence exact."""
    first, count = (each.to(levels.device) for each in spans)
    total = levels.index_select(-2, first)
    for more in range(1, int(spans[1].max())):
        further = levels.index_select(-2, (first + more).clamp_(max=levels.shape[-2] - 1))
        total.add_(further.mul_((count > more).to(levels.dtype)[:, None]))
    return total.div_(count[:, None]).add_(0.5).floor_()


@lru_cache(maxsize=64)
def box_spans(size: int, target: int) -> tuple[Tensor, Tensor]:
    """Which pixels of an axis Pillow's box filter averages for each pixel of a resampled one.

    Args:
        size, target: lengths before and after, pixels.

    Returns:
        int64 (target,) twice, on the CPU: the first pixel whose centre lies in the box, and how
        many there are.
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
    return covered.to(torch.uint8).argmax(1), covered.sum(1)


def jpeg_compression(images: Tensor, random: Random, quality: int) -> Tensor:
    """Encode as JPEG with 4:2:0 chroma and decode, by Pillow: one result for every device.

    Args:
        images: (N, 3, H, W).
        random: not drawn from.
        quality: 1 to 100.

    Returns:
        (N, 3, H, W).
    """
    levels = (images * 255).round_().to(torch.int32).to(torch.uint8).cpu()
    pixels = levels.movedim(1, -1).contiguous().numpy()
    decoded = torch.from_numpy(np.stack([_jpeg_levels(image, quality) for image in pixels]))
    return decoded.movedim(-1, 1).contiguous().to(images) / 255


def _jpeg_levels(levels: np.ndarray, quality: int) -> np.ndarray:
    with io.BytesIO() as file:
        Image.fromarray(levels).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))
