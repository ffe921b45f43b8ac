"""The networks of the small runs: a ResNet of their own, or one of a library, with its weights."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from reference_training.config import OWN_NETWORK, SmallRun
from reference_training.networks.models import Loaded, find, load_model
from reference_training.networks.resnet import Classifier, ResNet, Tapped, describe
from reference_training.runtime.errors import RunError
from ulfd_torch import suggest_layers
from ulfd_torch.layers import layer_output, layout_of


class LibraryClassifier(Classifier):
    """A library's network for images in [−1, 1], which it normalises as its weights expect.

    Args:
        name: as `models.find` takes it.
        classes: the number of outputs.
        side: of the images, pixels.

    Raises:
        RunError: there is no such network, or it takes no images of that size.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, classes: int, side: int) -> None:
        super().__init__()
        library = find(name)
        self.name, self.side = name, side
        self.network = library.build(classes)
        self.mean, self.std = library.preprocessing.mean, library.preprocessing.std  # type: ignore
        for buffer, values in (
            ("scale", [0.5 / std for std in self.std]),
            ("shift", [(0.5 - m) / std for m, std in zip(self.mean, self.std, strict=True)]),
        ):
            self.register_buffer(buffer, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        size = library.preprocessing.input_size
        try:
            found = suggest_layers(self, self._example())
        except Exception as error:  # whatever a network raises for images that it does not take
            raise RunError(
                f"{name} cannot be trained on images of {side} pixels: {error}. Its own size is "
                f"{size}: give --side {size}, or choose another --network."
            ) from error
        self.candidates = [layer.name for layer in found]
        self.feature_layer = self.candidates[0]

    def _example(self) -> Tensor:
        return torch.zeros(2, 3, self.side, self.side)

    def tapped(self, layer: str) -> Tapped:
        """A layer by its name in the library's network, or the last feature as "deep"."""
        place = self.feature_layer if layer == "deep" else f"network.{layer}"
        try:
            feature = layer_output(self, place, self._example())
            layout = layout_of(self, place, feature, self._example(), None)
        except (ValueError, TypeError) as error:
            names = ", ".join(name.removeprefix("network.") for name in self.candidates)
            raise RunError(
                f"--layer {layer} does not suit {self.name}: {error} Layers that do: {names}; "
                "deep is the first."
            ) from error
        return Tapped(place, feature.shape[layout.index("C")], layout)

    def _inside(self) -> Any:
        """What only the networks of this project show; raises ValueError."""
        raise ValueError(
            f"this method needs the inside of a ResNet, which {self.name} does not show; leave "
            "--network out, or choose among the methods vanilla, cross_entropy, "
            "feature_distillation and ulfd."
        )

    fc = downsampling = shallow_layer = shallow_channels = property(_inside)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x * self.scale + self.shift)


def classifier(run: SmallRun, classes: int) -> Classifier:
    """The run's network with random weights."""
    if run.backbone == OWN_NETWORK:
        return ResNet(run.network, classes)
    return LibraryClassifier(run.backbone, classes, run.side)


def description(run: SmallRun) -> str:
    """What reports call it."""
    if run.backbone == OWN_NETWORK:
        return describe(run.network)
    weights = run.checkpoint.name if run.checkpoint else "the library's" if run.pretrained else None
    begun = f", begun with {weights} weights" if weights else ""
    return f"{run.backbone} at {run.side}×{run.side}{begun}"


def has_weights(run: SmallRun) -> bool:
    """Whether the network begins with weights that the run names."""
    return run.backbone != OWN_NETWORK and (run.pretrained or run.checkpoint is not None)


@cache
def _published(name: str, checkpoint: Any, download: bool) -> Loaded:
    return load_model(name, checkpoint=checkpoint, download=download)


def begin(model: Classifier, run: SmallRun) -> None:
    """Fills the network with the weights that the run names, if any, in place.

    Where they are of another number of classes, the last layer keeps its random weights.

    Raises:
        RunError: there are no such weights, they are of another network, or the last layer keeps
            its random weights and is not trained.
    """
    if not has_weights(run):
        return
    try:
        loaded = _published(run.backbone, run.checkpoint, run.download)
    except RunError as error:
        if run.checkpoint is not None:
            raise
        raise RunError(f"{error} Or begin with random weights, with --no-pretrained.") from error
    if (loaded.preprocessing.mean, loaded.preprocessing.std) != (model.mean, model.std):
        raise RunError(
            f"{loaded.name} expects images normalised by {loaded.preprocessing.mean} and "
            f"{loaded.preprocessing.std}, but {run.backbone} by {model.mean} and {model.std}."
        )
    network: Any = model.network
    own, weights = network.state_dict(), loaded.model.state_dict()
    last = [name for name, value in own.items() if value.shape != weights[name].shape]
    if any(own[name].shape[1:] != weights[name].shape[1:] for name in last):
        raise RunError(f"{loaded.name} differs from {run.backbone} in more than its last layer.")
    network.load_state_dict({**weights, **{name: own[name] for name in last}})
    if last and not run.pretraining.iterations:
        raise RunError(
            f"{loaded.name} has {loaded.classes} classes and the data others, so its last layer "
            "is new and must be trained: give --pretraining.iterations 100, say."
        )
