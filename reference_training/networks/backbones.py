"""The paper's backbones: torchvision's networks, and where their pretrained weights come from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torchvision.models import ResNet18_Weights, ResNet50_Weights, ResNeXt101_32X8D_Weights
from torchvision.models._api import WeightsEnum
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionBase

from reference_training.config import Network
from reference_training.data.views import MEAN, STD
from reference_training.networks.resnet import Classifier, ResNet
from reference_training.networks.weights import cached_file, check_name, fill_from_file
from reference_training.runtime.errors import RunError


class TorchvisionResNet(TorchvisionBase, Classifier):
    """torchvision's own network, with the names of the layers that may be distilled."""

    feature_layer = "layer4"
    shallow_layer = "relu"  # after conv1 and bn1: half the image's resolution
    shallow_channels = 64  # of every network of this family
    downsampling = 32
    mean, std = MEAN, STD


class SmallResNet(ResNet):
    """The small runs' network, for photographs."""

    mean, std = MEAN, STD


@dataclass(frozen=True)
class Backbone:
    """How to make a backbone for a number of classes, and its pretrained weights if there are."""

    make: Callable[[int], Classifier]
    pretrained: WeightsEnum | None = None


ARCHITECTURES: dict[str, Backbone] = {
    "resnet50": Backbone(
        partial(TorchvisionResNet, Bottleneck, [3, 4, 6, 3]), ResNet50_Weights.IMAGENET1K_V1
    ),
    "resnext101_32x8d": Backbone(
        partial(TorchvisionResNet, Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=8),
        ResNeXt101_32X8D_Weights.IMAGENET1K_V1,
    ),
    # Not in the paper: small enough to try everything out.
    "resnet18": Backbone(
        partial(TorchvisionResNet, BasicBlock, [2, 2, 2, 2]), ResNet18_Weights.IMAGENET1K_V1
    ),
    "resnet8": Backbone(partial(SmallResNet, Network())),
}
"""The names are torchvision's where it has the network. A new backbone is one entry."""


def _pretrained(name: str) -> WeightsEnum:
    weights = ARCHITECTURES[name].pretrained
    if weights is None:
        raise RunError(f"there are no pretrained weights of a {name}; use --weights random.")
    return weights


def pretrained_file(name: str) -> Path:
    """Where torchvision keeps the pretrained weights of the architecture `name`."""
    return cached_file(_pretrained(name).url)


def download_command(name: str) -> str:
    """What fetches the pretrained weights."""
    weights = _pretrained(name)
    return (
        f'python -c "from torchvision.models import get_weight; '
        f"get_weight('{weights}').get_state_dict(progress=True)\""
    )


def load_weights(model: Classifier, name: str, weights: str, prefix: str | None = None) -> str:
    """Fills a network; nothing is downloaded.

    Args:
        model: changed in place.
        name: of its architecture.
        weights: "pretrained" (torchvision's V1 weights from its cache), "random" (leaves the model
            as it is), or a file as `weights.read_tensors` reads it.
        prefix: of the names in the file; None finds it.

    Returns:
        The SHA-256 of the file, or "random".

    Raises:
        RunError: the file is missing or damaged, or belongs to another network.
    """
    if weights == "random":
        return weights
    path = Path(weights)
    if weights == "pretrained":
        path = pretrained_file(name)
        if not path.is_file():
            raise RunError(
                f"the weights {path} are not there. Get it with\n    {download_command(name)}"
            )
        check_name(path)
    kind = f"{name} with {model.fc.out_features} classes"
    return fill_from_file(
        model, path, kind, "Fetch it again, or train from --weights random.", prefix
    )
