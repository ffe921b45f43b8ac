"""A trained network with its UEM, from an export or a run, as a meter of image quality."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_training.config import OWN_NETWORK, Network, Recipe, UEMOptions
from reference_training.data.images import SIDE
from reference_training.data.views import CentralView
from reference_training.evaluation.calibration import mean_theta
from reference_training.evaluation.trained import doubt, said_of
from reference_training.methods.trainings import training
from reference_training.networks.backbones import ARCHITECTURES
from reference_training.networks.models import RunNetwork
from reference_training.networks.preprocessing import Preprocessing
from reference_training.networks.resnet import Classifier, ResNet
from reference_training.networks.weights import fill
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json, reading
from reference_training.training import checkpoint, export
from reference_training.training.checkpoint import STEP, strip_prefix
from reference_training.training.record import restored
from ulfd_torch import UEM, FeatureTap


@dataclass(frozen=True)
class Meter:
    """Scores images; its modules are in eval mode, on the device to compute on."""

    model: nn.Module
    uem: UEM
    untrained: UEM  # a UEM of the same form with random weights, to be compared
    layer: str  # whose output the UEM sees
    view: CentralView
    preprocessing: Preprocessing
    dataset: tuple[str, Path | None] | None = None
    """The name and the folder of what it was trained on, if not photographs."""

    @torch.no_grad()
    def score(self, images: Tensor) -> dict[str, list[float]]:
        """θ of each image uint8 (B, 3, crop, crop), and what one would take without it.

        Returns:
            For each image, higher meaning more degraded,

            * `theta`: the mean over the feature's elements of θ = exp(σ/2) (Sec. 4.4);
            * `untrained`: the same of a UEM with random weights: what training did not add;
            * `confidence`: 1 − the classifier's largest softmax output;
            * `activation`: minus the mean of the feature ẑ, which the UEM starts from;
            * `smoothness`: minus the mean absolute Laplacian in grey levels; needs no network.

        Raises:
            RunError: a score is not finite.
        """
        logits, feature = self._forward(images)
        grey = images.to(logits.device).double().mean(1, keepdim=True)
        laplacian = grey.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
        scores = {
            "theta": mean_theta(said_of(self.uem, feature).log_variance),
            "untrained": mean_theta(said_of(self.untrained, feature).log_variance),
            "confidence": doubt(logits),
            "activation": -feature.double().flatten(1).mean(1),
            "smoothness": -functional.conv2d(grey, laplacian).abs().flatten(1).mean(1),
        }
        for name, values in scores.items():
            if not values.isfinite().all():
                raise RunError(f"a score ({name}) is not finite; did the training diverge?")
        return {name: values.tolist() for name, values in scores.items()}

    @torch.no_grad()
    def theta_map(self, images: Tensor) -> Tensor:
        """θ at each place of images uint8 (B, 3, H, W): float64 (B, h, w), the channels' mean."""
        _, feature = self._forward(images)
        return (said_of(self.uem, feature).log_variance.double() / 2).exp().mean(1)

    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        images = images.to(next(self.model.parameters()).device)
        with FeatureTap(self.model, self.layer) as tap:
            return self.model(self.preprocessing(images)), tap.take()


def load_meter(folder: Path, device: torch.device | str = "cpu") -> Meter:
    """The network in an export, or in a training's folder as runs/digits/seed-0/ulfd.

    Raises:
        RunError: there is neither, something is missing or damaged, or it has no UEM.
    """
    exports = [path for path in (folder, folder / "export") if (path / export.MODEL).is_file()]
    if not exports and not checkpoint.iterations(folder):
        raise RunError(
            f"{folder} holds neither an export ({export.MODEL}) nor checkpoints; give the folder "
            "export of a finished run, or a training's folder, as RUN/seed-0/ulfd@uem=official."
        )
    with reading(folder, "is not of this version", "Use the version of ulfd that wrote it"):
        meter = _from_export(exports[0]) if exports else _from_run(folder)
    for module in (meter.model, meter.uem, meter.untrained):
        module.to(device).to(memory_format=torch.channels_last).eval()
    return meter


def _from_export(folder: Path) -> Meter:
    config = read_json(folder / export.CONFIG)
    network = ARCHITECTURES[config["arch"]].make(config["classes"])
    step, untrained = _random_step(network, config["method"], config)
    export.read(folder, step)
    view = CentralView(config["resize"], config["crop"])
    preprocessing = Preprocessing(tuple(config["mean"]), tuple(config["std"]))
    return Meter(step.model, step.uem, untrained, step.layer, view, preprocessing)


def _from_run(folder: Path) -> Meter:
    place = folder.resolve()
    config = read_json(place.parent.parent / "run.json")["config"]
    if config.get("backbone", OWN_NETWORK) != OWN_NETWORK:
        raise RunError(
            f"{folder} holds a network {config['backbone']}; the meter reads those of the run's "
            "own ResNets and of exports."
        )
    network = ResNet(restored(Network, config["network"]), RunNetwork.classes)
    step, untrained = _random_step(network, place.name, config)
    point = checkpoint.read_latest(folder)
    assert point is not None  # the folder has one
    fill(step, strip_prefix(STEP, point.tensors))
    view, preprocessing = CentralView(SIDE, SIDE, pads=True), RunNetwork.preprocessing
    root = config["data_root"]
    dataset = config["dataset"], None if root is None else Path(root)
    return Meter(step.model, step.uem, untrained, step.layer, view, preprocessing, dataset)


def _random_step(network: Classifier, name: str, config: dict[str, Any]) -> tuple[Any, UEM]:
    """A training's step with random weights, and another UEM of the same form."""
    recipe, options = restored(Recipe, config["recipe"]), restored(UEMOptions, config["uem"])
    step: Any = training(name).make_step(network, recipe, options)
    if step.uem is None:
        raise RunError(f"{name} has no UEM; give a network that was trained with one, as by ulfd.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return step, UEM(step.uem.spec)
