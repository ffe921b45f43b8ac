"""Fine-tuning on degraded images by cross entropy alone: Table 5, first column.

The paper's text says "use degraded images to fine-tune ... only cross entropy", while Eq. 10 with
λ = 0 keeps the clean term (Table 6a). The default is the latter, so that the columns of Table 5
differ in nothing but the distillation; `cross_entropy_degraded` is the former.
"""

from torch.nn import functional

from reference_training.data.batch import Batch
from reference_training.methods.base import Method, Step, StepResult


class CrossEntropyStep(Step):
    """L = CE(y, f(x)) + CE(y, f(x̃)): Eq. 10 with λ = 0, its passes in the same order."""

    def forward(self, batch: Batch) -> StepResult:
        degraded = functional.cross_entropy(self.model(batch.degraded), batch.labels)
        clean = functional.cross_entropy(self.model(batch.clean), batch.labels)
        return StepResult(clean + degraded, {"clean": clean, "degraded": degraded})


class DegradedOnlyStep(Step):
    """L = CE(y, f(x̃))."""

    def forward(self, batch: Batch) -> StepResult:
        degraded = functional.cross_entropy(self.model(batch.degraded), batch.labels)
        return StepResult(degraded, {"degraded": degraded})


METHOD = Method("cross_entropy", lambda model, recipe, uem: CrossEntropyStep(model))
DEGRADED_ONLY = Method("cross_entropy_degraded", lambda model, recipe, uem: DegradedOnlyStep(model))
