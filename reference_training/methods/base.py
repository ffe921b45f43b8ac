"""What a method is: a name, and the module that turns a batch into the loss to minimise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from reference_training.config import Recipe, UEMOptions
from reference_training.networks.resnet import Classifier
from ulfd_torch import UEM

VANILLA = "vanilla"


class StepResult(NamedTuple):
    """The loss to minimise, and scalars (0-d tensors) to log."""

    loss: Tensor
    logs: dict[str, Tensor]


class Step(nn.Module):
    """A training step, `Batch` to `StepResult`: holds every weight that is trained.

    `model` is the network that is evaluated; `uem` its uncertainty module, if it has one.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self.uem: UEM | None = None


@dataclass(frozen=True)
class Method:
    """How a network is trained.

    `make_step` builds a module like `Step`, its own or another with the same two attributes, from a
    network that already holds the weights of `start`.
    """

    name: str
    make_step: Callable[[Classifier, Recipe, UEMOptions], Any]
    second: str = "corruption"
    """What the second image of each pair is: a key of `data.second_images.SECOND_IMAGES`."""
    second_views: int = 1
    """How many second images of each pair it needs, drawn independently."""
    start: str | None = VANILLA
    """The training whose network this one begins with; None begins with random weights."""
    needs: str | None = None
    """Another training, whose `step.model` is loaded into `needed`, a module of this step."""
    source: str = ""
    """Where the definition comes from, if not from the paper; what is missing there."""

    @property
    def pretrained(self) -> bool:
        """Whether published weights can be its beginning: it is vanilla, or starts from one."""
        return self.start is not None or self.name == VANILLA
