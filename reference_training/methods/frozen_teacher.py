"""A teacher to which nothing happens: a copy of a network that is never trained."""

import copy

import torch
from torch import Tensor, nn

from ulfd_torch import FeatureTap


class FrozenTeacher(nn.Module):
    """Images (B, 3, H, W) to the outputs of some layers of a network as it is now.

    The copy has no gradients and stays in eval mode. Checkpoints hold it, so that a run continues
    with the teacher it began with.

    Args:
        network: is copied; make taps of its own afterwards, or they are copied along.
        layers: whose outputs are returned, in this order; names as `FeatureTap` takes them.
    """

    def __init__(self, network: nn.Module, layers: list[str]) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._taps = [FeatureTap(self.network, layer) for layer in layers]
        self.eval()

    def train(self, mode: bool = True) -> "FrozenTeacher":
        """Stays in eval mode, whatever the step around it does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        self.network(images)
        return [tap.take() for tap in self._taps]
