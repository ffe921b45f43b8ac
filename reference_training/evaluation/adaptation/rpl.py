"""Robust pseudo-labelling: batch normalisation's scales and shifts learn from own predictions.

Source: Rusak et al. 2021, "If your data distribution shifts, use self-learning".
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_training.evaluation.adaptation.base import Adaptation
from reference_training.evaluation.adaptation.statistics import normalisations

Q = 0.8
LEARNING_RATE = 0.75e-3
BATCH = 96


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


def affine_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The scales and shifts of batch normalisation, which alone are to be trained from here on."""
    model.requires_grad_(False)
    found = [weight for layer in normalisations(model) for weight in layer.parameters()]
    for weight in found:
        weight.requires_grad_()
    return found


def predict(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Logits of each batch, then one step of SGD on it with its own predictions for labels."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(affine_parameters(model), lr=LEARNING_RATE)
    for layer in normalisations(model):
        layer.train()
    for images in batches:
        with torch.enable_grad():
            logits = model(images)
            loss = generalised_cross_entropy(logits, logits.argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield logits.detach()


RPL = Adaptation(
    "rpl",
    "RPL",
    predict,
    batch=BATCH,
    small_batch=BATCH,
    source="Rusak et al. 2021, hard pseudo-labels with the numbers of its public demo (batch 96, "
    "SGD of rate 0.75e-3 without momentum, q = 0.8). There five epochs, here one pass in which "
    "every image is predicted before it is learned from. The demo's optimiser moves all weights; "
    "here only batch normalisation's scales and shifts move, as the paper says. What the ULFD "
    "paper took for its Table 4 is not established.",
)
