"""DeepAugment's stand-in: each image through a small random residual network of its own.

DeepAugment's images come from two trained networks with damaged weights and lie in files. This is
in the style of its variant in memory, Noise2Net, and no more than a stand-in for either.

Source: Hendrycks et al. 2021, "The many faces of robustness" (Noise2Net: an identity with several
random multi-scale blocks added to it, ε up to 0.75); widths and normalisation are this project's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reference_training.corruptions.random import Random

BLOCKS = 4
KERNELS = (1, 3, 5)  # of a block's parallel branches
WIDTH = 3  # channels of a branch
STRONGEST = 0.75
DOMAIN = 1 << 42  # of the draws; see `Random`
LEAST_DEVIATION = 1e-3  # what a flat channel is divided by, grey levels


@torch.no_grad()
def random_network(images: Tensor, seeds: Tensor) -> Tensor:
    """x ← x + ε block(x), four times, in standardised channels; ε ~ U(0, 0.75) for each image.

    Afterwards every channel gets back the mean and the deviation that it had, and is rounded.

    Args:
        images: uint8 (B, 3, H, W).
        seeds: int64 (B,), on the CPU; an image's result depends on its seed and pixels alone.

    Returns:
        uint8 (B, 3, H, W) on the images' device.
    """
    if not len(images):
        return images.clone()
    random = Random(seeds, DOMAIN, images.device)
    strength = random.uniform(1, high=STRONGEST).float().to(images.device, non_blocking=True)
    levels = images.float().contiguous()
    mean, deviation = _moments(levels)
    x = (levels - mean) / deviation.clamp(min=LEAST_DEVIATION)
    for _ in range(BLOCKS):
        x = x + strength[:, :, None, None] * _standardised(_block(x, random))
    return (_standardised(x) * deviation + mean).round_().clamp_(0, 255).to(torch.uint8)


def _block(x: Tensor, random: Random) -> Tensor:
    """1×1 to some branches, each of which sees its neighbour's output too, and 1×1 back (Res2Net).

    Args:
        x: (B, 3, H, W).
        random: the weights' draws.

    Returns:
        (B, 3, H, W).
    """
    wide = WIDTH * len(KERNELS)
    parts = _convolved(x, random, wide).relu_().split(WIDTH, 1)
    seen: list[Tensor] = []
    for part, size in zip(parts, KERNELS, strict=True):
        inputs = part + seen[-1] if seen else part
        seen.append(_convolved(inputs, random, WIDTH, size).relu_())
    return _convolved(torch.cat(seen, 1), random, x.shape[1])


def _convolved(x: Tensor, random: Random, channels: int, size: int = 1) -> Tensor:
    """Each image by its own random kernel: one convolution with as many groups as images."""
    inputs = x.shape[1]
    deviation = (2 / (inputs * size**2)) ** 0.5
    kernels = random.normal_field(channels, inputs, size, size, std=deviation)
    if size == 1:
        return (kernels.flatten(2) @ x.flatten(2)).unflatten(2, x.shape[2:])
    together = x.flatten(0, 1)[None]
    found = functional.conv2d(together, kernels.flatten(0, 1), padding=size // 2, groups=len(x))
    return found.view(len(x), channels, *x.shape[2:])


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, summed in float64: in no order that matters."""
    variance, mean = torch.var_mean(x.double(), (2, 3), correction=0, keepdim=True)
    return mean.to(x.dtype), variance.sqrt().to(x.dtype)


def _standardised(x: Tensor) -> Tensor:
    mean, deviation = _moments(x)
    return (x - mean) / deviation.clamp(min=LEAST_DEVIATION)
