"""Self-feature distillation without uncertainty ("Ours w/o UEM"): Table 5, second column."""

from torch import Tensor

from reference_training.config import Recipe
from reference_training.methods.base import Batch, Method, StepResult
from reference_training.networks import Classifier
from ulfd_torch import UEM, SelfDistillation, ULFDLoss


def loss_of(recipe: Recipe) -> ULFDLoss:
    """λ·L_ULFD with the recipe's options."""
    return ULFDLoss(
        weight=recipe.distillation_weight,
        prior_weight=recipe.prior_weight,
        beta=recipe.beta,
        clamp=recipe.clamp,
    )


def sigma_logs(log_variance: Tensor, clamp: tuple[float, float]) -> dict[str, Tensor]:
    """σ's range and mean, and the share of its elements on which the clamp acts."""
    sigma = log_variance.detach()
    low, high = clamp
    return {
        "log_variance_min": sigma.min(),
        "log_variance_mean": sigma.mean(),
        "log_variance_max": sigma.max(),
        "log_variance_clamped": ((sigma < low) | (sigma > high)).float().mean(),
    }


class DistillationStep(SelfDistillation):
    """Eq. 10; without a UEM its distillation loss is the mean squared error."""

    def __init__(self, model: Classifier, recipe: Recipe, uem: UEM | None = None) -> None:
        super().__init__(
            model,
            layer=model.tapped(recipe.layer)[0],
            uem=uem,
            loss=loss_of(recipe),
            teacher=recipe.teacher,
            batch_norm=recipe.batch_norm,
        )
        self.layer = model.tapped(recipe.layer)[0]
        self.clamp = recipe.clamp

    def forward(self, batch: Batch) -> StepResult:  # type: ignore[override]
        result = super().forward(*batch)
        logs = {
            "clean": result.clean,
            "degraded": result.degraded,
            "distillation": result.distillation,
        }
        if result.log_variance is not None:
            logs |= sigma_logs(result.log_variance, self.clamp)
        return StepResult(result.total, logs)


METHOD = Method("feature_distillation", lambda model, recipe, uem: DistillationStep(model, recipe))
