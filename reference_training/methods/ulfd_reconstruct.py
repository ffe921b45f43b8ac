"""ULFD with the UEM of the official training script, which reconstructs the feature (variant B).

The paper, its poster and the released checkpoint use the UEM as a side branch (`ulfd`). The script
has a second head instead whose output, the reconstructed feature, is ẑ: it is compared with the
clean feature z, and pooled and classified in the place of the network's own. The clean image goes
through the plain network in training. At test time the head stays, for every image, clean ones
too: a test does not know which are degraded, and the script has one path only.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_training.config import Recipe, UEMOptions
from reference_training.data.batch import Batch
from reference_training.methods.base import Method, StepResult
from reference_training.methods.feature_distillation import loss_of
from reference_training.methods.inserted import Inserted
from reference_training.networks.resnet import Classifier
from ulfd_torch import UEM


class Reconstruct(nn.Module):
    """The network's feature to the one that replaces it, both (B, C, H, W)."""

    def __init__(self, uem: UEM) -> None:
        super().__init__()
        self.uem = uem

    def forward(self, feature: Tensor) -> Tensor:
        return self.uem(feature).feature


class ReconstructStep(nn.Module):
    """L = CE(y, f(x)) + CE(y, f̂(x̃)) + λ·L_ULFD(z, ẑ, σ) (Eq. 10).

    f is the plain network, f̂ the one with the head; ẑ and σ are the head's.

    Raises:
        ValueError: the recipe asks for what the official script does not have.
    """

    def __init__(self, network: Classifier, recipe: Recipe, options: UEMOptions) -> None:
        super().__init__()
        for name, value, only in (
            ("teacher", recipe.teacher, "self"),
            ("batch_norm", recipe.batch_norm, "separate"),
        ):
            if value != only:
                raise ValueError(
                    f"ulfd_reconstruct: {name} is {value!r}, but the official script, which it "
                    f"follows, has only {only!r}; use that, or the method ulfd."
                )
        layer, channels, _ = network.tapped(recipe.layer)
        uem = UEM(replace(options.spec(channels), variant="reconstruct"))
        self.model = Inserted(network, layer, Reconstruct(uem))
        self.layer = self.model.tapped(recipe.layer).layer
        limits = (recipe.clamp, recipe.beta, recipe.gamma)
        if recipe.epsilon < 0 or (recipe.epsilon and limits != (None, 0.0, None)):
            raise ValueError(
                f"--recipe.epsilon {recipe.epsilon} must be >= 0, and stands with --recipe.clamp "
                "None, without beta and gamma, as in the official script."
            )
        self.epsilon = recipe.epsilon
        self.loss = loss_of(replace(recipe, epsilon=0.0))

    @property
    def uem(self) -> UEM:
        """The UEM inside the model; a second registration would save its weights twice."""
        return self.model.get_submodule("inserted.uem")  # type: ignore[return-value]

    def distillation(self, z_hat: Tensor, z: Tensor, log_variance: Tensor) -> Tensor:
        """λ·mean(2·(z − ẑ)²/(2·exp(σ) + ε) + k·σ): Eq. 9 where ε is 0."""
        if not self.epsilon:
            return self.loss(z_hat, z, log_variance)
        least = torch.full_like(log_variance, math.log(self.epsilon / 2))
        raised = torch.logaddexp(log_variance, least)  # exp(−raised) is 2/(2·exp(σ) + ε)
        prior = self.loss.weight * self.loss.prior_weight * (log_variance - raised).mean()
        return self.loss(z_hat, z, raised) + prior

    def forward(self, batch: Batch) -> StepResult:
        log_variance, z_hat = self.uem(self.model.before(batch.degraded))
        degraded = functional.cross_entropy(self.model.after(z_hat), batch.labels)
        z = self.model.before(batch.clean)
        clean = functional.cross_entropy(self.model.after(z), batch.labels)
        distillation = self.distillation(z_hat, z, log_variance)
        logs = {"clean": clean, "degraded": degraded, "distillation": distillation}
        logs |= self.loss.statistics(z_hat, z, log_variance)._asdict()
        return StepResult(clean + degraded + distillation, logs)


METHOD = Method(
    "ulfd_reconstruct",
    ReconstructStep,
    source="The structure, the two passes and the gradient through z are the official training "
    "script's of March 2023 (MIT); the released checkpoint of 2022 is not of this variant. The "
    "recipe is that of all methods here.",
)
