"""Self-feature distillation without uncertainty ("Ours w/o UEM"): Table 5, second column."""

from reference_training.config import Recipe
from reference_training.data.batch import Batch
from reference_training.methods.base import Method, StepResult
from reference_training.networks.resnet import Classifier
from ulfd_torch import UEM, SelfDistillation, ULFDLoss


def loss_of(recipe: Recipe) -> ULFDLoss:
    """λ·L_ULFD with the recipe's options.

    Raises:
        ValueError: the recipe has an ε.
    """
    if recipe.epsilon:
        raise ValueError(
            "--recipe.epsilon is the official script's, which ulfd_reconstruct follows; leave it "
            "out, --recipe.clamp limits the weights here."
        )
    return ULFDLoss(
        weight=recipe.distillation_weight,
        prior_weight=recipe.prior_weight,
        beta=recipe.beta,
        gamma=recipe.gamma,
        clamp=recipe.clamp,
    )


class DistillationStep(SelfDistillation):
    """Eq. 10; without a UEM its distillation loss is the mean squared error."""

    def __init__(self, model: Classifier, recipe: Recipe, uem: UEM | None = None) -> None:
        layer = model.tapped(recipe.layer).layer
        super().__init__(
            model,
            layer=layer,
            uem=uem,
            loss=loss_of(recipe),
            teacher=recipe.teacher,
            batch_norm=recipe.batch_norm,
            statistics=uem is not None,
        )
        self.layer = layer

    def forward(self, batch: Batch) -> StepResult:  # type: ignore[override]
        result = super().forward(*batch)
        logs = {
            "clean": result.clean,
            "degraded": result.degraded,
            "distillation": result.distillation,
        }
        if result.statistics is not None:
            logs |= result.statistics._asdict()
        return StepResult(result.total, logs)


METHOD = Method("feature_distillation", lambda model, recipe, uem: DistillationStep(model, recipe))
