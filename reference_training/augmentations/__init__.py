"""Augmentations of Table 3, batched, on any device: pure functions of the pixels and the seeds.

`augmix` mixes an image with chains of operations, `tones` and `geometry`.
"""

from .mixing import OPERATIONS, augmix

__all__ = ["OPERATIONS", "augmix"]
