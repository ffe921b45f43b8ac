"""Noise: Gaussian, shot, impulse, and (unseen in training) speckle.

Here and in the other families: `images` is float64 (N, 3, H, W) holding whole grey levels / 255,
`random` draws for each of the N images, the other arguments are one row of `parameters.py`. What
is returned may leave [0, 1]; `corrupt` clips it.

Source of every definition: Hendrycks & Dietterich 2019, ImageNet-C.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from .random import Random


def gaussian_noise(images: Tensor, random: Random, std: float) -> Tensor:
    """Add noise: x + N(0, std^2), independently for each pixel and channel.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        std: the noise's standard deviation; 1 is white.

    Returns:
        (N, 3, H, W).
    """
    return random.normal(*images.shape[1:], std=std).add_(images)


def speckle_noise(images: Tensor, random: Random, std: float) -> Tensor:
    """Multiply by noise: x + x N(0, std^2).

    Args:
        images: (N, 3, H, W).
        random: N streams.
        std: the noise's standard deviation, relative to the pixel.

    Returns:
        (N, 3, H, W).
    """
    return random.normal(*images.shape[1:], std=std).add_(1).mul_(images)


def impulse_noise(images: Tensor, random: Random, fraction: float) -> Tensor:
    """Replace each element with probability `fraction`, by 0 or 1 with equal chances.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        fraction: the share of elements replaced.

    Returns:
        (N, 3, H, W).
    """
    draw = random.uniform(*images.shape[1:])
    salted = torch.where(draw < fraction / 2, 1.0, images)
    return torch.where((draw >= fraction / 2) & (draw < fraction), 0.0, salted)


def shot_noise(images: Tensor, random: Random, photons: float) -> Tensor:
    """Count photons: Poisson(photons x) / photons.

    Exact, by inversion of the distribution function; an 8-bit image has only 256 different means.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        photons: the mean count of a white pixel.

    Returns:
        (N, 3, H, W).
    """
    table = poisson_table(photons, images.device)
    # Row r of the table holds r + P(count <= k): the rows follow each other in one sorted list.
    level = (images * 255).round_()
    drawn = random.uniform(*images.shape[1:]).add_(level)
    count = torch.searchsorted(table.view(-1), drawn, right=True) - level * table.shape[1]
    return count.clamp_(0, table.shape[1] - 1) / photons


@lru_cache(maxsize=32)
def poisson_table(photons: float, device: torch.device) -> Tensor:
    """Distribution functions of Poisson(photons r / 255) for the grey levels r = 0..255.

    Args:
        photons: the mean count of a white pixel.
        device: where the table is kept.

    Returns:
        float64 (256, K): r + P(count <= k), each row ending at r + 1 exactly.
    """
    counts = torch.arange(int(photons + 12 * math.sqrt(photons) + 20), dtype=torch.float64)
    levels = torch.arange(256, dtype=torch.float64)[:, None]
    mean = photons * levels / 255
    log_probability = torch.xlogy(counts, mean) - mean - torch.lgamma(counts + 1)
    cumulative = log_probability.exp().cumsum(dim=1).clamp_(max=1)
    cumulative[:, -1] = 1
    return (cumulative + levels).to(device)
