"""Cross entropy alone: the vanilla network, and fine-tuning on degraded images (Table 5).

The paper's text says "use degraded images to fine-tune ... only cross entropy", while Eq. 10 with
λ = 0 keeps the clean term (Table 6a). The default is the latter, so that the columns of Table 5
differ in nothing but the distillation; `cross_entropy_degraded` is the former.
"""

import torch
from torch.nn import functional

from reference_training.data.batch import Batch
from reference_training.methods.base import VANILLA, Method, Step, StepResult
from reference_training.networks.resnet import Classifier


class CrossEntropyStep(Step):
    """L = the sum of CE(y, f(x)) over some images of a pair.

    Args:
        model: f.
        images: "clean", "degraded", or both, in the order of their passes.
    """

    def __init__(self, model: Classifier, *images: str) -> None:
        super().__init__(model)
        self.images = images

    def forward(self, batch: Batch) -> StepResult:
        losses = {
            name: functional.cross_entropy(self.model(getattr(batch, name)), batch.labels)
            for name in self.images
        }
        return StepResult(torch.stack([*losses.values()]).sum(), dict(sorted(losses.items())))


VANILLA_METHOD = Method(
    VANILLA, lambda model, recipe, uem: CrossEntropyStep(model, "clean"), second="clean", start=None
)
"""What every other method starts from."""
METHOD = Method(
    "cross_entropy", lambda model, recipe, uem: CrossEntropyStep(model, "degraded", "clean")
)
"""Eq. 10 with λ = 0, its passes in the same order."""
DEGRADED_ONLY = Method(
    "cross_entropy_degraded", lambda model, recipe, uem: CrossEntropyStep(model, "degraded")
)
