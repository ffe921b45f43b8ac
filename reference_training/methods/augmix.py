"""AugMix's training: cross entropy on the clean image, and consistency with two augmented ones.

`augmix@second=...` asks the same consistency of two views of another second image.
"""

import torch
from torch import Tensor
from torch.nn import functional

from reference_training.data.batch import Batch
from reference_training.methods.base import Method, Step, StepResult

CONSISTENCY_WEIGHT = 12.0
LEAST_PROBABILITY = 1e-7


def jensen_shannon(logits: Tensor) -> Tensor:
    """Mean over the batch of (1/V) Σ_v KL(p_v ‖ M), with the mixture M = Σ_v p_v / V ≥ 1e-7.

    Args:
        logits: (V, B, classes), of V views of the same images.

    Returns:
        float32 (), in nats.
    """
    log_p = functional.log_softmax(logits.float(), dim=2)
    p = log_p.exp()
    log_mixture = p.mean(0).clamp(LEAST_PROBABILITY, 1).log()
    return (p * (log_p - log_mixture)).sum(2).mean()


class AugMixStep(Step):
    """L = CE(y, f(x)) + 12 JS(f(x), f(x₁), f(x₂)); one pass, so that BN sees all images at once."""

    def forward(self, batch: Batch) -> StepResult:
        views = batch.degraded.transpose(0, 1)
        images = torch.cat([batch.clean, views.flatten(0, 1)])
        logits = self.model(images).unflatten(0, (1 + len(views), -1))
        clean = functional.cross_entropy(logits[0], batch.labels)
        consistency = CONSISTENCY_WEIGHT * jensen_shannon(logits)
        return StepResult(clean + consistency, {"clean": clean, "consistency": consistency})


METHOD = Method(
    "augmix",
    lambda model, recipe, uem: AugMixStep(model),
    second="augmix",
    second_views=2,
    source="Hendrycks et al. 2020, AugMix, loss and operations as in its public code. There "
    "networks are trained from random weights, and so on ImageNet here; small runs fine-tune the "
    "vanilla network.",
)
