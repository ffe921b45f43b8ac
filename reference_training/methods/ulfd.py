"""The paper's method: self-feature distillation weighted by the UEM: Table 5, third column."""

from reference_training.config import Recipe, UEMOptions
from reference_training.methods.base import Method
from reference_training.methods.feature_distillation import DistillationStep
from reference_training.networks.resnet import Classifier
from ulfd_torch import UEM


def make_step(model: Classifier, recipe: Recipe, options: UEMOptions) -> DistillationStep:
    """Eq. 10 with a UEM on the feature that is distilled."""
    _, channels, layout = model.tapped(recipe.layer)
    return DistillationStep(model, recipe, UEM(options.spec(channels), layout=layout))


METHOD = Method("ulfd", make_step)
