"""What a method is: a name, and the module that turns a batch into the loss to minimise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from reference_training.config import Recipe, UEMOptions
from reference_training.networks import Classifier
from ulfd_torch import UEM


class Batch(NamedTuple):
    """Pairs of normalised images (B, 3, H, W) and their labels (B,)."""

    clean: Tensor
    degraded: Tensor
    labels: Tensor


class StepResult(NamedTuple):
    """The loss to minimise, and scalars (0-d tensors) to log."""

    loss: Tensor
    logs: dict[str, Tensor]


class Step(nn.Module):
    """A training step, `Batch` to `StepResult`: holds every weight that is trained."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self.uem: UEM | None = None


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    `make_step` builds a module like `Step`, its own or another with the same two attributes.
    """

    name: str
    make_step: Callable[[Classifier, Recipe, UEMOptions], Any]
    degrades: bool = True  # whether it trains on degraded images
