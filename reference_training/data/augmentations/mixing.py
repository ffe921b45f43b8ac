"""AugMix: an image mixed with three chains of simple operations on it.

The operations that overlap ImageNet-C's corruptions (colour, contrast, brightness, sharpness) are
left out, as in the published results.

Source: Hendrycks et al. 2020, AugMix, and the numbers of its public code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from reference_training.corruptions.random import Random
from reference_training.data.augmentations import geometry, tones

Operation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(uint8 (N, 3, H, W), levels 0..10 and directions ±1, both float64 (N,)) to uint8 (N, 3, H, W)."""

OPERATIONS: Mapping[str, Operation] = {
    "autocontrast": tones.autocontrast,
    "equalize": tones.equalize,
    "posterize": tones.posterize,
    "rotate": geometry.rotate,
    "solarize": tones.solarize,
    "shear_x": geometry.shear_x,
    "shear_y": geometry.shear_y,
    "translate_x": geometry.translate_x,
    "translate_y": geometry.translate_y,
}

CHAINS = 3
DEEPEST = 3
LEAST_LEVEL = 0.1
DOMAIN = 1 << 41  # of the draws; see `Random`


def severity_for(height: int, width: int) -> int:
    """The highest level: 3 for images of CIFAR's size, 1 for larger ones."""
    return 3 if max(height, width) <= 32 else 1


@torch.no_grad()
def augmix(images: Tensor, seeds: Tensor) -> Tensor:
    """(1 − m) x + m Σ w_i chain_i(x), with m ~ Beta(1, 1) and w ~ Dirichlet(1, 1, 1).

    Each of the 3 chains is 1 to 3 operations one after another, drawn with replacement. AugMix
    mixes normalised images; as its weights add up to 1, mixing grey levels is the same.

    Args:
        images: uint8 (B, 3, H, W).
        seeds: int64 (B,), on the CPU; an image's result depends on its seed and pixels alone.

    Returns:
        float32 (B, 3, H, W) in 0..255, not rounded, on the images' device.
    """
    random = Random(seeds, DOMAIN)
    skip = random.uniform(1)  # Beta(1, 1)
    exponential = -torch.log1p(-random.uniform(CHAINS))
    shares = exponential / exponential.sum(1, keepdim=True)  # Dirichlet(1, 1, 1)
    weights = torch.cat([1 - skip, skip * shares], 1).float().to(images.device, non_blocking=True)
    mixed = images * weights[:, 0, None, None, None]
    for chain, share in enumerate(weights[:, 1:].unbind(1)):
        mixed += share[:, None, None, None] * _chain(images, Random(seeds, DOMAIN + 1 + chain))
    return mixed


def _chain(images: Tensor, random: Random) -> Tensor:
    """One to three operations on each image."""
    images = images.clone(memory_format=torch.contiguous_format)
    highest = severity_for(*images.shape[2:])
    depths = random.integers(1, DEEPEST + 1, 1)
    kinds = random.integers(0, len(OPERATIONS), DEEPEST)
    levels = random.uniform(DEEPEST, low=LEAST_LEVEL, high=highest)
    signs = 1.0 - 2.0 * random.integers(0, 2, DEEPEST)
    for step in range(DEEPEST):
        for kind, operation in enumerate(OPERATIONS.values()):
            members = ((kinds[:, step] == kind) & (depths[:, 0] > step)).nonzero()[:, 0]
            if len(members):
                here = members.to(images.device, non_blocking=True)
                images[here] = operation(images[here], levels[members, step], signs[members, step])
    return images
