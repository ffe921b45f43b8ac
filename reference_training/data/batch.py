"""What a training step sees of the data: pairs of images and their labels."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Pairs of normalised images (B, 3, H, W) and their labels (B,).

    The second image of a pair is what the method asks for, see `data.second_images`; one that asks
    for two views of it gets them stacked: (B, 2, 3, H, W).
    """

    clean: Tensor
    degraded: Tensor
    labels: Tensor
