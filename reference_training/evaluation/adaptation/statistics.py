"""Batch normalisation that follows the test images: `bn`, and its mixture with the source's.

A layer with source statistics m, v normalises a batch of n images, whose own are m̂, v̂, by

    mean = N / (N + n) m + n / (N + n) m̂,    variance = N / (N + n) v + n / (N + n) v̂.

N = 0 is training mode ("full"); N > 0 counts the source as N more images ("partial").

Source: Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift
adaptation", and its public code.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reference_training.evaluation.adaptation.base import Adaptation, Predict
from reference_training.runtime.errors import RunError

PSEUDO_SAMPLES = 16


def normalisations(model: nn.Module) -> list[_BatchNorm]:
    """The layers that can adapt: batch normalisation with running averages.

    Raises:
        RunError: there are none.
    """
    layers = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    if not layers:
        raise RunError(
            f"{type(model).__name__} has no batch normalisation with running averages, so there is "
            "nothing that could adapt to the test images; evaluate it without an adaptation."
        )
    return layers


class _Mixed:
    """Before a layer in eval mode runs: sets the statistics that it is about to use."""

    def __init__(self, layer: _BatchNorm, source_samples: int) -> None:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        self.mean, self.variance = layer.running_mean.clone(), layer.running_var.clone()
        self.source_samples = source_samples

    def __call__(self, layer: _BatchNorm, inputs: tuple[Tensor]) -> None:
        (x,) = inputs
        variance, mean = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
        share = len(x) / (self.source_samples + len(x))
        torch.lerp(self.mean, mean.to(self.mean.dtype), share, out=layer.running_mean)
        torch.lerp(self.variance, variance.to(self.mean.dtype), share, out=layer.running_var)


def predict_with(source_samples: int) -> Predict:
    """Predictions with each batch's own statistics, after N images of the source."""

    @torch.no_grad()
    def predict(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        model = copy.deepcopy(model)
        for layer in normalisations(model):
            layer.register_forward_pre_hook(_Mixed(layer, source_samples))
        for images in batches:
            yield model(images)

    return predict


BN = Adaptation(
    "bn",
    "BN adaptation",
    predict_with(0),
    batch=256,
    small_batch=32,
    source="Schneider et al. 2020, full adaptation: every batch is normalised by its own mean and "
    "variance. The batches are those of the paper's Sec. 4.3: 256, and 32 on its subset.",
)
BN_PRIOR = Adaptation(
    "bn_prior",
    f"BN adaptation, N = {PSEUDO_SAMPLES}",
    predict_with(PSEUDO_SAMPLES),
    batch=256,
    small_batch=32,
    source="Schneider et al. 2020, partial adaptation: statistics mixed with the source's, which "
    f"count as N = {PSEUDO_SAMPLES} images. Which N the paper took, if any, is not established; "
    "the batch's variance is not Bessel-corrected, so that N = 0 is `bn`.",
)
