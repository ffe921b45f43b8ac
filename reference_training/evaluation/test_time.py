"""Uses of σ when a trained network classifies: pooling, views, and the choice between networks.

The definitions, and what each is compared with, are in results/PLAN_PHOTOGRAPHS.md.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from reference_training.corruptions import SEEN, SEVERITIES, UNSEEN
from reference_training.data.pairs import normalised
from reference_training.data.samples import CLEAN, EvaluationSet
from reference_training.evaluation.calibration import mean_theta, risks
from reference_training.evaluation.trained import Trained, batch_size, doubt
from reference_training.runtime.errors import RunError
from ulfd_torch.features import find_layer

POOLINGS = {"mean": 0.0, "exp(−σ)": 1.0, "exp(−σ/2)": 0.5}
"""{name: γ of the weights exp(−γσ)}."""
COVERAGE = 0.8
HIGH = (4, 5)
PLACES: Mapping[str, frozenset[EvaluationSet]] = {
    "clean": frozenset({(CLEAN, 0)}),
    **{
        name: frozenset((corruption, severity) for corruption in types for severity in severities)
        for name, types, severities in (
            ("seen", SEEN, SEVERITIES),
            ("unseen", UNSEEN, SEVERITIES),
            ("seen 4–5", SEEN, HIGH),
            ("unseen 4–5", UNSEEN, HIGH),
        )
    },
}
"""{what is averaged over: its sets}."""
Record = dict[str, list[tuple[EvaluationSet, np.ndarray]]]
"""{measure: (a set, its value for each image)}."""
SAME = 1e-4
"""Of the largest logit: by how much roundings may change logits."""


class Said(NamedTuple):
    """What a network says of N images."""

    logits: Tensor  # (poolings, N, classes)
    log_variance: Tensor  # σ̄, the mean of σ over an image's elements, float64 (N,)
    theta: Tensor  # mean θ = exp(σ/2) over them, float64 (N,)


def pooled(feature: Tensor, log_variance: Tensor, gamma: float) -> Tensor:
    """The feature whose mean over the places is Σ w·ẑ / Σ w, w = exp(−γσ): ẑ·w / mean w.

    Args:
        feature: ẑ, (N, C, H, W).
        log_variance: σ, broadcasts to it.
        gamma: 0 is the feature itself.
    """
    least = log_variance.amin((2, 3), keepdim=True)  # no weight overflows, a constant σ gives 1
    weight = (gamma * (least - log_variance)).exp()
    return feature * (weight / weight.mean((2, 3), keepdim=True))


@torch.no_grad()
def say(network: Trained, images: Tensor) -> Said:
    """What a network in eval mode says of images, uint8 (N, 3, S, S).

    Raises:
        RunError: what follows the UEM's layer is no mean over the places.
    """
    assert network.uem is not None
    assert network.layer is not None
    uem, sigmas, parts = network.uem, [], []

    def pool(module: Any, inputs: Any, feature: Tensor) -> Tensor:
        said = uem(feature)
        sigma = said if isinstance(said, Tensor) else said.log_variance
        sigmas.append(sigma)
        mean = feature.mean((2, 3), keepdim=True).expand_as(feature)
        return torch.cat([*(pooled(feature, sigma, g) for g in POOLINGS.values()), mean])

    handle = find_layer(network.model, network.layer).register_forward_hook(pool)
    try:
        for batch in images.split(batch_size(images)):
            logits = network.model(normalised(batch))
            parts.append(logits.view(len(POOLINGS) + 1, len(batch), -1))
    finally:
        handle.remove()
    *variants, plain = torch.cat(parts, 1)
    if (variants[0] - plain).abs().amax() > SAME * plain.abs().amax():
        raise RunError(
            f"{network.name} does not average {network.layer} over its places before the last "
            "layer, so that no other pooling is defined; leave it out with --methods."
        )
    sigma = torch.cat(sigmas)
    return Said(torch.stack(variants), sigma.double().flatten(1).mean(1), mean_theta(sigma))


def moved(images: Tensor, by: int) -> Tensor:
    """Square images (..., S, S), moved down and right by so many pixels, the edge repeated."""
    rows = (torch.arange(images.shape[-1]) - by).clamp(0, images.shape[-1] - 1)
    return images[..., rows, :][..., rows]


def views(images: Tensor, flips: bool) -> list[Tensor]:
    """The images (N, 3, S, S), mirrored (or moved up and left), moved down and right."""
    step = max(1, images.shape[-1] // 16)
    return [images, images.flip(-1) if flips else moved(images, -step), moved(images, step)]


def averaged(logits: Tensor, log_variance: Tensor) -> Tensor:
    """Σ w·logits / Σ w over V views, w = exp(−σ̄): (V, N, classes), (V, N) to (N, classes)."""
    return ((-log_variance).softmax(0)[..., None] * logits).sum(0)


def least(logits: Tensor, doubts: Tensor) -> Tensor:
    """Of each image the logits of least doubt: (V, N, classes), (V, N) to (N, classes)."""
    return logits[doubts.argmin(0), torch.arange(logits.shape[1])]


def alone(said: Sequence[Said]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a network makes of its views: {use: logits (N, classes)}, {score: doubt (N,)}."""
    first, logits = said[0], torch.stack([view.logits[0] for view in said])
    sigma = torch.stack([view.log_variance for view in said])
    soft = first.logits[0].double().log_softmax(1)
    predicted = {f"pooling {name}": first.logits[at] for at, name in enumerate(POOLINGS)} | {
        "views average": logits.mean(0),
        "views exp(−σ̄)": averaged(logits, sigma),
        "views σ̄": least(logits, sigma),
        "views max-softmax": least(logits, torch.stack([*map(doubt, logits)])),
    }
    return predicted, {
        "θ": first.theta,
        "max-softmax": doubt(first.logits[0]),
        "entropy": -(soft.exp() * soft).sum(1),
    }


def of_two(pair: Sequence[Said], usual: Sequence[float]) -> dict[str, Tensor]:
    """What two networks make of images; `usual` are their mean θ on clean ones."""
    logits = torch.stack([said.logits[0] for said in pair])
    theta = torch.stack([said.theta for said in pair])
    return {
        "two average": logits.mean(0),
        "two θ": least(logits, theta),
        "two relative θ": least(logits, theta / torch.tensor(usual)[:, None]),
        "two max-softmax": least(logits, torch.stack([*map(doubt, logits)])),
    }


def measures(found: Record) -> dict[str, float]:
    """{"measure @ place": in %}: top-1 of each use, AURC and selective accuracy of each score."""
    result = {}
    for place, sets in PLACES.items():
        values = {
            name: np.concatenate(kept)
            for name, rows in found.items()
            if (kept := [row for which, row in rows if which in sets])
        }
        if not values:  # none of its severities was evaluated
            continue
        scores = {name: values.pop(name) for name in ("θ", "max-softmax", "entropy")}
        both = rankdata(scores["θ"]) + rankdata(scores["max-softmax"])
        for name, score in {**scores, "both": both}.items():
            curve = risks(score, ~values["pooling mean"])
            result[f"AURC {name} @ {place}"] = curve.mean()
            result[f"kept {name} @ {place}"] = 1 - curve[ceil(COVERAGE * len(curve)) - 1]
        result |= {f"{name} @ {place}": correct.mean() for name, correct in values.items()}
    return {name: 100 * float(value) for name, value in result.items()}
