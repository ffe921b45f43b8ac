"""A trained network with its UEM, from an export or a run, as a meter of image quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from reference_training.config import Network, Recipe, UEMOptions
from reference_training.data.images import SIDE
from reference_training.evaluation.runner import weights_sha256
from reference_training.methods.trainings import training
from reference_training.networks.backbones import ARCHITECTURES
from reference_training.networks.libraries import RunNetwork
from reference_training.networks.preprocessing import Preprocessing
from reference_training.networks.resnet import Classifier, ResNet
from reference_training.networks.weights import fill, read_tensors
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json
from reference_training.training import checkpoint, export
from reference_training.training.state import below
from reference_training.uncertainty.pictures import View
from reference_training.uncertainty.scores import STATISTICS, Observed
from ulfd_torch import UEM, FeatureTap
from ulfd_torch.modules import Reconstruction

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Meter:
    """Scores images; in eval mode, on the device to compute on."""

    name: str
    model: nn.Module
    uem: UEM | None
    layer: str
    """Whose output the UEM sees."""
    view: View
    preprocessing: Preprocessing
    dataset: str | None = None
    """The dataset by name that it was trained on, if not photographs."""
    untrained: UEM | None = None
    """A UEM of the same form with random weights, to be compared."""

    @property
    def statistics(self) -> tuple[str, ...]:
        """The keys of `STATISTICS` that this network can give."""
        uems = {None: True, "log_variance": self.uem, "untrained": self.untrained}
        return tuple(name for name, one in STATISTICS.items() if uems[one.needs] is not None)

    @property
    def identity(self) -> Json:
        """What tells this meter from others, as JSON."""
        return {
            "name": self.name,
            "model_sha256": weights_sha256(self.model),
            "uem_sha256": None if self.uem is None else weights_sha256(self.uem),
            "view": vars(self.view),
        }

    def to(self, device: torch.device) -> Meter:
        """The same meter with its networks on a device."""
        for module in (self.model, self.uem, self.untrained):
            if module is not None:
                module.to(device)
        return self

    def beside_untrained(self, seed: int = 0) -> Meter:
        """The same meter, with a UEM of random weights beside its own if it has one."""
        if self.uem is None:
            return self
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            untrained = UEM(self.uem.spec).to(memory_format=torch.channels_last).eval()
        return replace(self, untrained=untrained)

    @torch.no_grad()
    def score(self, images: Tensor) -> dict[str, list[float]]:
        """Every statistic of each image of a batch; higher means more degraded.

        Args:
            images: uint8 (B, 3, crop, crop).

        Raises:
            RunError: a score is not finite.
        """
        images = images.to(next(self.model.parameters()).device)
        with FeatureTap(self.model, self.layer) as tap:
            logits = self.model(self.preprocessing(images))
            feature = tap.take()
        sigmas = (_log_variance(uem, feature) for uem in (self.uem, self.untrained))
        seen = Observed(images, logits, feature, *sigmas)
        scores = {name: STATISTICS[name].of(seen) for name in self.statistics}
        for name, values in scores.items():
            if not values.isfinite().all():
                raise RunError(
                    f"{self.name}: the score {name!r} is not a finite number; did the training "
                    "diverge?"
                )
        return {name: values.tolist() for name, values in scores.items()}


def _log_variance(uem: UEM | None, feature: Tensor) -> Tensor | None:
    if uem is None:
        return None
    found = uem(feature)
    return found.log_variance if isinstance(found, Reconstruction) else found


def load_meter(folder: Path) -> Meter:
    """The network in an export folder, or in a training's folder as runs/digits/seed-0/ulfd.

    Raises:
        RunError: there is neither, something is missing or damaged.
    """
    if (folder / export.MODEL).is_file():
        return _from_export(folder)
    if (folder / "export" / export.MODEL).is_file():
        return _from_export(folder / "export")
    if folder.is_dir() and checkpoint.iterations(folder):
        return _from_run(folder)
    trained = sorted({path.parent for path in folder.glob("seed-*/*/[0-9]*.json")})
    if trained:
        raise RunError(
            f"{folder} is a run of several trainings; give one of them:\n    "
            + "\n    ".join(map(str, trained))
        )
    raise RunError(
        f"{folder} holds neither an export ({export.MODEL}) nor a training's checkpoints. Give "
        "the folder export of a finished run, or a folder as runs/fashion-mnist-subset/seed-0/ulfd."
    )


def _from_export(folder: Path) -> Meter:
    path = folder / export.CONFIG
    if not path.is_file():
        raise RunError(
            f"{folder} has no {export.CONFIG}, which says how the UEM is built and which images "
            "the network expects: an older version wrote it. Start the finished run's command "
            "again; it trains nothing, and writes the export anew."
        )
    config = _read(path)
    try:
        fresh = ARCHITECTURES[config["arch"]].make(config["classes"])
        model, uem, layer = _networks(fresh, config["method"], config["recipe"], config["uem"])
        view = View(config["resize"], config["crop"])
        ready = Preprocessing(tuple(config["mean"]), tuple(config["std"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _foreign(path, error) from error
    fill(model, read_tensors(folder / export.MODEL))
    if uem is not None:
        fill(uem, read_tensors(folder / export.UEM))
    return Meter(str(folder), model, uem, layer, view, ready)


def _from_run(folder: Path) -> Meter:
    path = folder.resolve().parent.parent / "run.json"
    if not path.is_file():
        raise RunError(
            f"{folder} has checkpoints, but {path} is not there, which says of what. Give a "
            "training's folder inside its run; a run with --experiment must be finished, its "
            "export is taken then."
        )
    try:
        config = _read(path)["config"]
        name = folder.resolve().name
        fresh = ResNet(_restored(Network, config["network"]), RunNetwork.classes)
        model, uem, layer = _networks(fresh, name, config["recipe"], config["uem"])
        dataset = config["dataset"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _foreign(path, error) from error
    try:
        point = checkpoint.read_latest(folder)
    except SafetensorError as error:
        raise RunError(f"{folder}: a checkpoint cannot be read ({error}).") from error
    assert point is not None  # the folder has one
    fill(model, below("step.model.", point.tensors))
    if uem is not None:
        fill(uem, below("step.uem.", point.tensors))
    view = View(SIDE, SIDE, pads=True)
    return Meter(str(folder), model, uem, layer, view, RunNetwork.preprocessing, dataset)


def _networks(
    model: Classifier, name: str, recipe: Json, uem: Json
) -> tuple[nn.Module, UEM | None, str]:
    """The network, its UEM and the layer between them as a training has them, weights random."""
    step = training(name).make_step(model, _restored(Recipe, recipe), _restored(UEMOptions, uem))
    for module in (step.model, step.uem):
        if module is not None:
            module.to(memory_format=torch.channels_last).eval()
    layer = step.layer if hasattr(step, "layer") else step.model.feature_layer
    return step.model, step.uem, layer


def _read(path: Path) -> Json:
    value = read_json(path)
    return value if isinstance(value, dict) else {}


def _restored(kind: type[T], values: Mapping[str, Any]) -> T:
    """A flat dataclass from what JSON made of it."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _foreign(path: Path, error: Exception) -> RunError:
    return RunError(
        f"{path} does not describe a network of this version ({type(error).__name__}: {error}); "
        "use the version of ulfd that wrote it."
    )
