"""KD-VID: variational information distillation (Ahn et al. 2019) from clean to degraded: Table 1.

The teacher is a frozen copy of the vanilla network that sees the clean image; the student begins
with the same weights and sees the degraded one. At each tapped layer a regressor predicts the mean
μ of the teacher's feature t from the student's, with one learned variance s per channel:

    VID = mean(½·((μ − t)²/s + log s)),   s = softplus(a) + ε

Written with σ = log s this is ½·(exp(−σ)·(t − μ)² + σ): the library's loss (Eq. 9) of the student
μ and the teacher t with k = 1, λ = ½ and σ of shape (1, C, 1, 1).
"""

import copy
from math import expm1, log

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_training.data.batch import Batch
from reference_training.methods.base import Method, Step, StepResult
from reference_training.networks.resnet import Classifier
from ulfd.losses import VID_EPSILON
from ulfd_torch import FeatureTap, ULFDLoss, vid_log_variance

INITIAL_VARIANCE = 5.0
VID_WEIGHT = 1.0
"""Of the sum over the layers, beside a cross entropy of weight 1."""


class FrozenTeacher(nn.Module):
    """Images (B, 3, H, W) to the outputs of some layers of a network as it is now.

    The copy has no gradients and stays in eval mode. Checkpoints hold it, so that a run continues
    with the teacher it began with.

    Args:
        network: is copied; make taps of its own afterwards, or they are copied along.
        layers: whose outputs are returned, in this order; names as `FeatureTap` takes them.
    """

    def __init__(self, network: nn.Module, layers: list[str]) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._taps = [FeatureTap(self.network, layer) for layer in layers]
        self.eval()

    def train(self, mode: bool = True) -> "FrozenTeacher":
        """Stays in eval mode, whatever the step around it does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        self.network(images)
        return [tap.take() for tap in self._taps]


class Regressor(nn.Module):
    """The student's feature (B, C, H, W) to the mean of the teacher's, and its log-variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
        )
        raw = log(expm1(INITIAL_VARIANCE - VID_EPSILON))  # softplus's inverse
        self.raw_variance = nn.Parameter(torch.full((1, channels, 1, 1), raw))

    def forward(self, student: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(student), vid_log_variance(self.raw_variance)


class VIDStep(Step):
    """L = CE(y, f(x̃)) + the sum of the stages' VID."""

    def __init__(self, model: Classifier) -> None:
        super().__init__(model)
        stages = [name for name, _ in model.named_children() if name.startswith("layer")]
        self.teacher = FrozenTeacher(model, stages)
        features = self.teacher(model.fc.weight.new_zeros(1, 3, 32, 32))
        self.regressors = nn.ModuleList(Regressor(feature.shape[1]) for feature in features)
        self.loss = ULFDLoss(prior_weight=1.0, weight=0.5)
        self._taps = [FeatureTap(model, stage) for stage in stages]

    def forward(self, batch: Batch) -> StepResult:
        degraded = functional.cross_entropy(self.model(batch.degraded), batch.labels)
        losses, variances = [], []
        for tap, regressor, target in zip(
            self._taps, self.regressors, self.teacher(batch.clean), strict=True
        ):
            mean, log_variance = regressor(tap.take())
            losses.append(self.loss(mean, target, log_variance))
            variances.append(log_variance.detach().exp().flatten())
        distillation = VID_WEIGHT * torch.stack(losses).sum()
        logs = {
            "degraded": degraded,
            "distillation": distillation,
            "variance_mean": torch.cat(variances).mean(),
        }
        return StepResult(degraded + distillation, logs)


METHOD = Method(
    "kd_vid",
    lambda model, recipe, uem: VIDStep(model),
    source="The loss, the regressors (all without bias), the initial variance and the weights 1 "
    "and 1 are RepDistiller's, as is that cross entropy is taken on the student's image, here the "
    "degraded one, alone; the layers, all stages, are torchdistill's recipe for ImageNet. The "
    "paper names neither its layers nor its recipe.",
)
