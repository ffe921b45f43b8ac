"""Augmentations of Table 3, batched, on any device: pure functions of the pixels and the seeds.

`augmix` (in `mixing`) mixes an image with chains of operations, `tones` and `geometry`;
`random_network` is the stand-in for DeepAugment, whose images are not to be had in memory.
"""

from .mixing import OPERATIONS, augmix
from .random_network import random_network as deepaugment_stand_in

__all__ = ["OPERATIONS", "augmix", "deepaugment_stand_in"]
