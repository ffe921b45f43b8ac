"""Noise: Gaussian, shot, impulse, and (unseen in training) speckle.

Here and in the other families: `images` is floating point (N, 3, H, W) holding whole grey levels /
255, `random` draws for each of the N images, the other arguments are one row of `parameters.py`.
What is returned may leave [0, 1]; `corrupt` clips it. `filters.of_levels` marks those which take
and return the 8-bit levels themselves.

Source of every definition: Hendrycks & Dietterich 2019, ImageNet-C.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from .filters import Number, number_for, of_levels, per_image, truncate_levels
from .random import Random

_CPU = torch.device("cpu")


@per_image
def gaussian_noise(images: Tensor, random: Random, std: Number) -> Tensor:
    """Add noise: x + N(0, std^2), independently for each pixel and channel.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        std: the noise's standard deviation; 1 is white.

    Returns:
        (N, 3, H, W).
    """
    return images + random.normal_field(*images.shape[1:], std=std)


@per_image
def speckle_noise(images: Tensor, random: Random, std: Number) -> Tensor:
    """Multiply by noise: x + x N(0, std^2).

    Args:
        images: (N, 3, H, W).
        random: N streams.
        std: the noise's standard deviation, relative to the pixel.

    Returns:
        (N, 3, H, W).
    """
    return images * random.normal_field(*images.shape[1:], mean=1, std=std)


@per_image
@of_levels
def impulse_noise(levels: Tensor, random: Random, fraction: Number) -> Tensor:
    """Replace each element with probability `fraction`, by 0 or 255 with equal chances.

    Args:
        levels: uint8 (N, 3, H, W).
        random: N streams.
        fraction: the share of elements replaced.

    Returns:
        uint8 (N, 3, H, W).
    """
    draw = random.bits24_field(*levels.shape[1:])
    few, most = _in_24_bits(fraction / 2, draw.device), _in_24_bits(fraction, draw.device)
    # By products with flags, as choosing by a mask is many times slower on a CPU.
    salt, kept = (draw < few).view(torch.uint8), (draw >= most).view(torch.uint8)
    return (levels * kept).add_(salt.mul_(255))


def _in_24_bits(share: Number, device: torch.device) -> int | Tensor:
    """Of 2^24 equally likely numbers, below which a share lies."""
    if isinstance(share, Tensor):
        return share.to(torch.float32).mul_(2**24).ceil_().to(torch.int32).to(device)
    return math.ceil(np.float32(share) * 2**24)


@per_image
@of_levels
def shot_noise(levels: Tensor, random: Random, photons: Number) -> Tensor:
    """Count photons: Poisson(photons x) / photons.

    Args:
        levels: uint8 (N, 3, H, W).
        random: N streams.
        photons: the mean count of a white pixel.

    Returns:
        int16 (N, 3, H, W).
    """
    counts = photon_counts(levels, random, photons).to(torch.float32)
    return truncate_levels(counts.div_(number_for(counts, photons)))


def photon_counts(levels: Tensor, random: Random, photons: Number) -> Tensor:
    """Draw from Poisson(photons level / 255) for each element.

    By Walker's alias method, as there are only 256 different means: a draw's high bits choose a
    count, and its low bits whether that count or its alias is taken.

    Args:
        levels: uint8 (N, 3, H, W).
        random: N streams.
        photons: the mean count of a white pixel.

    Returns:
        int32 (N, 3, H, W).
    """
    table, bits, first = poisson_alias_tables(photons, levels.device)
    low_bits, high_mask, low_mask = 32 - bits, (1 << bits) - 1, (1 << (32 - bits)) - 1
    draw = random.bits_field(*levels.shape[1:])
    count = (draw >> low_bits).bitwise_and_(high_mask)
    entry = levels.to(torch.int32).bitwise_left_shift_(bits).bitwise_or_(count)
    entry = entry if isinstance(bits, int) else entry.add_(first)
    entry = table.index_select(0, entry.reshape(-1)).view(draw.shape)
    share = (entry >> bits).bitwise_and_(low_mask)
    alias = entry.bitwise_and_(high_mask)
    # All ones where the draw's low bits reach the count's own share, else zeros.
    other = share.sub_(draw.bitwise_and_(low_mask)).sub_(1).bitwise_right_shift_(31)
    return count.bitwise_xor_(alias.bitwise_xor_(count).bitwise_and_(other))


def poisson_alias_tables(
    photons: Number, device: torch.device
) -> tuple[Tensor, int | Tensor, int | Tensor]:
    """`poisson_alias_table`, or those of all images one after the other.

    Args:
        photons: the mean count of a white pixel.
        device: where the tables lie.

    Returns:
        The tables, and for each image `bits` and where its own begins, int32 (N, 1, 1, 1); of one
        for all images an int and 0.
    """
    if not isinstance(photons, Tensor):
        return *poisson_alias_table(photons, device), 0
    each = photons.flatten().tolist()
    known = {one: poisson_alias_table(one, device) for one in each}
    tables, bits = zip(*known.values(), strict=True)
    first = dict(zip(known, accumulate((256 << b for b in bits), initial=0), strict=False))
    numbers = [[known[one][1] for one in each], [first[one] for one in each]]
    places = torch.tensor(numbers, dtype=torch.int32, device=_CPU).view(2, -1, 1, 1, 1)
    own_bits, starts = places.to(device).unbind()
    return torch.cat(tables), own_bits, starts


@lru_cache(maxsize=32)
def poisson_alias_table(photons: float, device: torch.device = _CPU) -> tuple[Tensor, int]:
    """Poisson(photons r / 255) for the grey levels r = 0..255 as 256 alias tables.

    Args:
        photons: the mean count of a white pixel.
        device: where the table is kept.

    Returns:
        A table, int32 (256 * 2^bits,), and `bits`. Entry r 2^bits + k holds above its
        low `bits` bits how many of the 2^(32 - bits) values of a draw's low bits leave it at the
        count k, and in these bits the count that the others take: every probability is a whole
        number of 2^-32.

    Source: Walker 1977, "An efficient method for generating discrete random variables with general
    distributions"; Vose 1991 for how the table is made.
    """
    bits = math.ceil(math.log2(photons + 12 * math.sqrt(photons) + 20))
    counts, levels = np.arange(1 << bits), np.arange(256)
    log_factorial = np.array([math.lgamma(count + 1) for count in counts])
    mean = (photons * levels / 255)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.where(counts == 0, 0, counts * np.log(mean))
    mass = np.rint(np.exp(power - mean - log_factorial) * 2.0**32).astype(np.int64)
    mass[levels, mass.argmax(axis=1)] += (1 << 32) - mass.sum(axis=1)

    # In the order of their masses, the light counts stand before the heavy ones. Each step fills
    # up one light count, the last one or the next, from the heaviest that is left.
    capacity = 1 << (32 - bits)
    order = mass.argsort(axis=1, kind="stable")
    next_light, heavy = np.zeros(256, dtype=np.int64), np.full(256, len(counts) - 1)
    light = order[levels, next_light]
    share, alias = np.full_like(mass, capacity), np.broadcast_to(counts, mass.shape).copy()
    for _ in range(len(counts) - 1):
        giver = order[levels, heavy]
        share[levels, light], alias[levels, light] = mass[levels, light], giver
        mass[levels, giver] -= capacity - mass[levels, light]
        emptied = (mass[levels, giver] < capacity) & (heavy > next_light + 1)
        next_light, heavy = next_light + ~emptied, heavy - emptied
        light = np.where(emptied, giver, order[levels, next_light])
    alias = np.where(share == capacity, counts, alias)
    share = np.where(share == capacity, 0, share)
    table = torch.from_numpy((share << bits) | alias).reshape(-1)
    return table.to(torch.int32).to(device), bits
