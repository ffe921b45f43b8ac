"""The vanilla network: cross entropy on clean images; every other method starts from it."""

from torch.nn import functional

from reference_training.data.batch import Batch
from reference_training.methods.base import VANILLA, Method, Step, StepResult


class VanillaStep(Step):
    """L = CE(y, f(x))."""

    def forward(self, batch: Batch) -> StepResult:
        loss = functional.cross_entropy(self.model(batch.clean), batch.labels)
        return StepResult(loss, {"clean": loss})


METHOD = Method(VANILLA, lambda model, recipe, uem: VanillaStep(model), second="clean", start=None)
