"""QualNet-style: the feature must hold the clean image, as a frozen inverse network decodes it."""

from typing import Self

import torch
from torch import Tensor, cat, nn
from torch.nn import functional

from reference_training.data.batch import Batch
from reference_training.methods.base import Method, Step, StepResult
from reference_training.networks.i_revnet import i_revnet_like
from reference_training.networks.resnet import Classifier
from reference_training.runtime.errors import RunError
from ulfd_torch import FeatureTap

RECONSTRUCTION_WEIGHT = 1.0
"""λ_rec; no value is established."""


class QualNetStep(Step):
    """L = CE(y, f(x)) + CE(y, f(x̃)) + λ_rec·(|D(b(z)) − x|₁ + |D(b(ẑ)) − x|₁).

    D is the i-RevNet's inverse, frozen and in eval mode, but gradients flow through it to the
    network f; b is a 3×3 convolution from f's deep feature, z or ẑ, to the code's channels. The
    images are compared in grey levels from 0 to 1; |·|₁ is the mean over all elements. Both b and D
    are for the training alone.

    The decoded images are not clipped to these levels, as the unofficial code does it: at the end
    of small runs 88 to 98 % of them lay outside then, and taught nothing.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__(model)
        layer, channels, _ = model.tapped("deep")
        self.needed = i_revnet_like(model).requires_grad_(False).eval()
        self.bridge = nn.Conv2d(channels, self.needed.fc.in_features, 3, padding=1)
        self._tap = FeatureTap(model, layer)
        self.std: Tensor
        std = torch.tensor(model.std).view(3, 1, 1)
        self.register_buffer("std", std, persistent=False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.needed.eval()
        return self

    def decoded(self, feature: Tensor) -> Tensor:
        """D(b(z)): the images, normalised, that features of the deep layer stand for."""
        # Under autocast the code comes in bfloat16, and sums of a hundred blocks need more digits.
        return self.needed.decode(self.bridge(feature).to(self.bridge.weight.dtype))

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(images)
        return logits, self._tap.take()

    def _difference(self, decoded: Tensor, images: Tensor) -> Tensor:
        """λ_rec times the mean absolute difference in grey levels from 0 to 1."""
        if decoded.shape != images.shape:
            raise RunError(
                f"the network's deep feature decodes to {tuple(decoded.shape[-2:])} pixels, but "
                f"the images have {tuple(images.shape[-2:])}: --crop must be a multiple of "
                f"{self.needed.downsampling}."
            )
        return RECONSTRUCTION_WEIGHT * functional.l1_loss(decoded * self.std, images * self.std)

    def forward(self, batch: Batch) -> StepResult:
        degraded_logits, degraded_feature = self._run(batch.degraded)
        clean_logits, clean_feature = self._run(batch.clean)
        clean = functional.cross_entropy(clean_logits, batch.labels)
        degraded = functional.cross_entropy(degraded_logits, batch.labels)
        of_clean, of_degraded = self.decoded(cat([clean_feature, degraded_feature])).chunk(2)
        parts = {
            "clean": clean,
            "degraded": degraded,
            "reconstruction_of_clean": self._difference(of_clean, batch.clean),
            "reconstruction_of_degraded": self._difference(of_degraded, batch.clean),
        }
        return StepResult(torch.stack(list(parts.values())).sum(), parts)


METHOD = Method(
    "qualnet",
    lambda model, recipe, uem: QualNetStep(model),
    needs="i_revnet",
    source=(
        "In the style of QualNet (Kim et al., CVPR 2021): written from its abstract and from "
        "descriptions, since no official code was found. Not established: its losses' weights, the "
        "bridge, the resolution, the optimiser, and whether it starts pretrained. "
        "Clean and degraded images are classified, as cross_entropy does."
    ),
)
