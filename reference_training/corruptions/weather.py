"""Weather: snow and fog. Frost and spatter, which are longer, have files of their own.

Source of every definition: Hendrycks & Dietterich 2019, ImageNet-C.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .blur import smear, zoom
from .filters import truncate_levels
from .random import Random


def snow(
    images: Tensor,
    random: Random,
    mean: float,
    std: float,
    factor: float,
    threshold: float,
    radius: int,
    sigma: float,
    keep: float,
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
    layer = zoom(random.normal(1, *images.shape[-2:], mean=mean, std=std), factor)
    layer = truncate_levels(torch.where(layer < threshold, 0.0, layer)) / 255
    layer = smear(layer, random.uniform(low=-135, high=-45), radius, sigma)
    red, green, blue = images.split(1, dim=1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    whitened = torch.maximum(images, 1.5 * grey + 0.5)
    return keep * images + (1 - keep) * whitened + layer + layer.rot90(2, dims=(-2, -1))


def fog(images: Tensor, random: Random, amount: float, wibble_decay: float) -> Tensor:
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
    brightest = images.amax(dim=(1, 2, 3), keepdim=True)
    return (images + amount * plasma) * (brightest / (brightest + amount))


def diamond_square(random: Random, side: int, wibble_decay: float) -> Tensor:
    """Grow fractal height maps that wrap around at their borders.

    From step = side and wibble = 100 on: the centre of each square becomes the mean of its 4
    corners + wibble U(-wibble, wibble), then each remaining edge's middle likewise from its 4
    neighbours; step is halved, wibble divided by its decay, until step < 2.

    Args:
        random: N streams.
        side: a power of two, pixels.
        wibble_decay: the divisor of the wibble.

    Returns:
        float64 (N, side, side), shifted and scaled to [0, 1].
    """
    heights = torch.zeros(len(random), side, side, dtype=torch.float64, device=random.device)
    step, wibble = side, 100.0
    while step >= 2:
        half, cells = step // 2, side // step
        corners = heights[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        squares = (pairs + pairs.roll(-1, 2)) / 4
        noise = wibble * random.uniform(3, cells, cells, low=-wibble, high=wibble)
        squares = squares + noise[:, 0]
        tops = (corners + corners.roll(-1, 2) + squares + squares.roll(1, 1)) / 4
        lefts = (corners + corners.roll(-1, 1) + squares + squares.roll(1, 2)) / 4
        heights[:, half::step, half::step] = squares
        heights[:, ::step, half::step] = tops + noise[:, 1]
        heights[:, half::step, ::step] = lefts + noise[:, 2]
        step, wibble = half, wibble / wibble_decay
    heights = heights - heights.amin(dim=(1, 2), keepdim=True)
    return heights / heights.amax(dim=(1, 2), keepdim=True)
