"""Test-time adaptation by name: what Table 4 compares the paper's method with.

`bn` normalises by the test images' statistics, `bn_prior` by a mixture with the source's. A layer
with source statistics m, v normalises a batch of n images, whose own are m̂, v̂, by

    mean = N / (N + n) m + n / (N + n) m̂,    variance = N / (N + n) v + n / (N + n) v̂.

N = 0 is training mode ("full"); N > 0 counts the source as N more images ("partial"). `rpl`, robust
pseudo-labelling, trains batch normalisation's scales and shifts by the network's own predictions.

Sources: Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift
adaptation", and its public code; Rusak et al. 2021, "If your data distribution shifts, use
self-learning".
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from reference_training.runtime.errors import RunError

Predict = Callable[[nn.Module, Iterable[Tensor]], Iterator[Tensor]]
"""(a network in eval mode, batches of normalised images (B, 3, H, W) of one corruption and
severity, in random order, which can be gone through again) to the logits (B, classes) of each
batch, in that order. The network comes back as it was."""


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


PSEUDO_SAMPLES = 16  # the N of `bn_prior`
Q, LEARNING_RATE, RPL_BATCH, RPL_EPOCHS = 0.8, 0.75e-3, 96, 5


@torch.no_grad()
def _unadapted(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    for images in batches:
        yield model(images)


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


def _predict_with(source_samples: int) -> Predict:
    """Predictions with each batch's own statistics, after N images of the source."""

    @torch.no_grad()
    def predict(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        model = copy.deepcopy(model)
        for layer in normalisations(model):
            source = layer.running_mean.clone(), layer.running_var.clone()  # type: ignore[union-attr]

            def mix(layer: _BatchNorm, inputs: tuple[Tensor], source=source) -> None:
                (x,) = inputs
                variance, mean = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
                share = len(x) / (source_samples + len(x))
                kind = source[0].dtype
                torch.lerp(source[0], mean.to(kind), share, out=layer.running_mean)
                torch.lerp(source[1], variance.to(kind), share, out=layer.running_var)

            layer.register_forward_pre_hook(mix)
        for images in batches:
            yield model(images)

    return predict


def generalised_cross_entropy(logits: Tensor, labels: Tensor, q: float = Q) -> Tensor:
    """The mean over the batch of (1 − p_y^q) / q: q → 0 is cross entropy, q = 1 is 1 − p_y.

    Args:
        logits: (B, classes).
        labels: int64 (B,), the y.
        q: in (0, 1].

    Returns:
        float32 or the logits' dtype, ().

    Source: Zhang & Sabuncu 2018.
    """
    log_p = -functional.cross_entropy(logits, labels, reduction="none")
    return -torch.expm1(q * log_p).mean() / q


def _pseudo_labelled(epochs: int) -> Predict:
    """Logits of each batch, then one step of SGD on it with its own predictions for labels.

    Of several epochs, each with the same batches, the last predicts.
    """

    def predict(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        model = copy.deepcopy(model).requires_grad_(False)
        layers = normalisations(model)
        weights = [weight.requires_grad_() for layer in layers for weight in layer.parameters()]
        optimizer = torch.optim.SGD(weights, lr=LEARNING_RATE)
        for layer in layers:
            layer.train()
        for epoch in range(1, epochs + 1):
            for images in batches:
                with torch.enable_grad():
                    logits = model(images)
                    loss = generalised_cross_entropy(logits, logits.argmax(1))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if epoch == epochs:
                    yield logits.detach()

    return predict


NONE = Adaptation("none", "", _unadapted)
BN = Adaptation(
    "bn",
    "BN adaptation",
    _predict_with(0),
    batch=256,
    small_batch=32,
    source="Schneider et al. 2020, full adaptation: every batch is normalised by its own mean and "
    "variance. The batches are those of the paper's Sec. 4.3: 256, and 32 on its subset.",
)
BN_PRIOR = Adaptation(
    "bn_prior",
    f"BN adaptation, N = {PSEUDO_SAMPLES}",
    _predict_with(PSEUDO_SAMPLES),
    batch=256,
    small_batch=32,
    source="Schneider et al. 2020, partial adaptation: statistics mixed with the source's, which "
    f"count as N = {PSEUDO_SAMPLES} images. Which N the paper took, if any, is not established; "
    "the batch's variance is not Bessel-corrected, so that N = 0 is `bn`.",
)
RPL = Adaptation(
    "rpl",
    "RPL",
    _pseudo_labelled(1),
    batch=RPL_BATCH,
    small_batch=RPL_BATCH,
    source="Rusak et al. 2021, hard pseudo-labels with the numbers of its public demo (batch 96, "
    "SGD of rate 0.75e-3 without momentum, q = 0.8), in one pass in which every image is predicted "
    "before it is learned from. The demo's optimiser moves all weights; "
    "here only batch normalisation's scales and shifts move, as the paper says. What the ULFD "
    "paper took for its Table 4 is not established.",
)
RPL5 = replace(
    RPL,
    name="rpl5",
    label=f"RPL, {RPL_EPOCHS} epochs",
    predict=_pseudo_labelled(RPL_EPOCHS),
    source=f"As RPL, with the demo's {RPL_EPOCHS} epochs. The last predicts, when the network has "
    "learned from the very images; the demo counts the predictions of all five.",
)
ADAPTATIONS: dict[str, Adaptation] = {
    adaptation.name: adaptation for adaptation in (NONE, BN, BN_PRIOR, RPL, RPL5)
}
"""A new adaptation is one `Adaptation` and one entry here."""
