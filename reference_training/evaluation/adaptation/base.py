"""What test-time adaptation is: predictions of a network that looks at the test images first."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Predict = Callable[[nn.Module, Iterable[Tensor]], Iterator[Tensor]]
"""(a network in eval mode, batches of normalised images (B, 3, H, W) of one corruption and
severity, in random order) to the logits (B, classes) of each batch, in that order. The network
comes back as it was."""


@dataclass(frozen=True)
class Adaptation:
    """How a network predicts the images of one evaluation set."""

    name: str
    label: str
    predict: Predict
    batch: int | None = None
    """Images adapted to at once; None where it makes no difference."""
    small_batch: int | None = None
    """The same where only few images are there (Table 4's second column)."""
    source: str = ""
    """Where the definition comes from."""


@torch.no_grad()
def _unadapted(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    for images in batches:
        yield model(images)


NONE = Adaptation("none", "", _unadapted)
