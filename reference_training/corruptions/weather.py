"""Weather: snow and fog. Frost and spatter, which are longer, have files of their own.

Source of every definition: Hendrycks & Dietterich 2019, ImageNet-C.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .blur import smear
from .filters import (
    Number,
    add_scaled,
    number_for,
    number_of_each,
    per_image,
    round_levels,
    truncate_levels,
)
from .random import Random
from .resampling import zoom, zoom_each


@per_image
def snow(
    images: Tensor,
    random: Random,
    mean: Number,
    std: Number,
    factor: Number,
    threshold: Number,
    radius: Number,
    sigma: Number,
    keep: Number,
) -> Tensor:
    """Whiten the image and let flakes fall over it, the same ones also turned by 180 degrees.

    layer = smear(zoom(N(mean, std^2)), values below the threshold being 0);
    y = keep x + (1 - keep) max(x, 1.5 grey(x) + 0.5);  result = y + layer + rot180(layer)

    Args:
        images: (N, 3, H, W).
        random: N streams; the flakes fall at U(-135, -45) degrees.
        mean, std: of the layer's noise.
        factor: the layer's enlargement.
        threshold: below it there is no flake.
        radius, sigma: of the smear, see `motion_blur`.
        keep: the weight of the unwhitened image.

    Returns:
        (N, 3, H, W).
    """
    noise = random.normal_field(1, *images.shape[-2:], mean=mean, std=std)
    layer = _flakes(noise, factor, threshold)
    layer = truncate_levels(layer).to(images.dtype) / 255
    layer = smear(layer, random.uniform(low=-135, high=-45), radius, sigma)
    return _snowed(images, layer, keep)


@per_image
def snow_uncut(
    images: Tensor,
    random: Random,
    mean: Number,
    std: Number,
    factor: Number,
    threshold: Number,
    radius: Number,
    sigma: Number,
    keep: Number,
) -> Tensor:
    """`snow` whose layer is cut to the image's size only after its smear, from the first pixel on.

    Args:
        images: (N, 3, H, W).
        random: N streams; the flakes fall at U(-135, -45) degrees.
        mean, std, factor, threshold, radius, sigma, keep: see `snow`.

    Returns:
        (N, 3, H, W).

    Source: the public package `imagecorruptions`.
    """
    height, width = images.shape[-2:]
    noise = random.normal_field(1, height, width, mean=mean, std=std)
    layer = _flakes(noise, factor, threshold, whole=True).clamp_(0, 1).to(images.dtype)
    layer = smear(layer, random.uniform(low=-135, high=-45), radius, sigma)
    return _snowed(images, layer[..., :height, :width], keep)


def _flakes(noise: Tensor, factor: Number, threshold: Number, *, whole: bool = False) -> Tensor:
    """Noise enlarged, and zero below a threshold."""
    if not isinstance(factor, Tensor) and not isinstance(threshold, Tensor):
        layer = zoom(noise, factor, whole=whole).contiguous()
        return F.threshold(layer, threshold, 0.0)
    factors = number_of_each(len(noise), factor)
    layer = zoom_each(noise, range(len(noise)), factors, whole=whole)
    return layer.mul_(layer > number_for(layer, threshold)).contiguous()


def _snowed(images: Tensor, layer: Tensor, keep: Number) -> Tensor:
    layer = round_levels(layer).to(images.dtype).div_(255)
    red, green, blue = images.unbind(1)
    whitest = red * (0.299 * 1.5)
    whitest = whitest.add_(green, alpha=0.587 * 1.5).add_(blue, alpha=0.114 * 1.5).add_(0.5)
    whitened = torch.maximum(images, whitest[:, None]).mul_(number_for(images, 1 - keep))
    whitened = add_scaled(whitened, images, number_for(images, keep))
    return whitened.add_(layer + layer.rot90(2, dims=(-2, -1)))


@per_image
def fog(images: Tensor, random: Random, amount: Number, wibble_decay: Number) -> Tensor:
    """Add a plasma cloud and keep the image's maximum m: (x + amount plasma) m / (m + amount).

    Args:
        images: (N, 3, H, W).
        random: N streams.
        amount: the cloud's strength.
        wibble_decay: how fast its finer structure fades, see `diamond_square`.

    Returns:
        (N, 3, H, W).
    """
    height, width = images.shape[-2:]
    side = 1 << (max(height, width) - 1).bit_length()
    plasma = diamond_square(random, side, wibble_decay)[:, None, :height, :width]
    brightest, amount = images.amax(dim=(1, 2, 3), keepdim=True), number_for(images, amount)
    return (images + amount * plasma).mul_(brightest / (brightest + amount))


def diamond_square(random: Random, side: int, wibble_decay: Number) -> Tensor:
    """Grow fractal height maps that wrap around at their borders.

    From step = side and wibble = 100 on: the centre of each square becomes the mean of its 4
    corners + wibble U(-wibble, wibble), then each remaining edge's middle likewise from its 4
    neighbours; step is halved, wibble divided by its decay, until step < 2.

    Args:
        random: N streams.
        side: a power of two, pixels.
        wibble_decay: the divisor of the wibble.

    Returns:
        float32 (N, side, side), shifted and scaled to [0, 1].
    """
    noise = random.uniform_field(side * side - 1, low=-1, high=1)
    corners = noise.new_zeros(len(random), 1, 1)
    wibble: Number = 100.0
    used = 0
    if isinstance(wibble_decay, Tensor):
        wibble_decay = wibble_decay.view(-1, 1)
    while (cells := corners.shape[1]) < side:
        drawn = noise[:, used : used + 3 * cells * cells].mul(number_for(noise, wibble**2))
        centre, top, left = drawn.view(-1, 3, cells, cells).unbind(1)
        used += 3 * cells * cells
        pairs = corners + corners.roll(-1, 1)
        squares = (pairs + pairs.roll(-1, 2)).div_(4).add_(centre)
        tops = corners + corners.roll(-1, 2)
        tops = tops.add_(squares).add_(squares.roll(1, 1)).div_(4).add_(top)
        lefts = pairs.add_(squares).add_(squares.roll(1, 2)).div_(4).add_(left)
        finer = noise.new_empty(len(random), 2 * cells, 2 * cells)
        finer[:, ::2, ::2], finer[:, 1::2, 1::2] = corners, squares
        finer[:, ::2, 1::2], finer[:, 1::2, ::2] = tops, lefts
        corners, wibble = finer, wibble / wibble_decay
    corners = corners - corners.amin(dim=(1, 2), keepdim=True)
    return corners / corners.amax(dim=(1, 2), keepdim=True)
