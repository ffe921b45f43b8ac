"""DDP-style: a module behind the shallow layer learns to undo the degradation (Table 1, Fig. 2).

In the style of Deep Degradation Prior (Wang et al. 2020); nothing to do with distributed training.
The vanilla network is frozen; its feature de-drifting module (FDM) brings the shallow feature of a
degraded image to that of the clean image, for which no labels are needed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_training.data.batch import Batch
from reference_training.methods.base import Method, Step, StepResult
from reference_training.methods.inserted import Inserted
from reference_training.networks.resnet import Classifier

BLOCKS = 3
DILATIONS = (1, 2, 4)


class DilatedBlock(nn.Module):
    """x + a 1×1 convolution of parallel dilated 3×3 ones; at first x itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
            for dilation in DILATIONS
        )
        self.merge = nn.Conv2d(len(DILATIONS) * channels, channels, 1)
        # Training then begins with the vanilla network, not with one whose feature is disturbed.
        nn.init.zeros_(self.merge.weight)
        nn.init.zeros_(self.merge.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        branches = torch.cat([branch(x) for branch in self.branches], dim=1)
        return x + self.merge(branches.relu())


class DeDriftingStep(Step):
    """L = mean((FDM(F(x̃)) − F(x))²), F the frozen network up to its shallow layer.

    For Figure 2, `model.before(images)` is the shallow feature before the FDM, and
    `model.inserted(feature)` after it.
    """

    model: Inserted

    def __init__(self, network: Classifier) -> None:
        layer, channels, _ = network.tapped("shallow")
        fdm = nn.Sequential(*(DilatedBlock(channels) for _ in range(BLOCKS)))
        super().__init__(Inserted(network.requires_grad_(False), layer, fdm))
        self.train()

    def train(self, mode: bool = True) -> "DeDriftingStep":
        """The network stays in eval mode."""
        super().train(mode)
        self.model.network.eval()
        return self

    def forward(self, batch: Batch) -> StepResult:
        with torch.no_grad():
            target, drifted = self.model.before(batch.clean), self.model.before(batch.degraded)
        loss = functional.mse_loss(self.model.inserted(drifted), target)
        logs = {"distillation": loss, "drift": functional.mse_loss(drifted, target)}
        return StepResult(loss, logs)


METHOD = Method(
    "ddp",
    lambda model, recipe, uem: DeDriftingStep(model),
    source="In the style of Deep Degradation Prior, from its abstract and this paper's Fig. 2: a "
    "frozen network, a module that maps shallow features, no labels. No code of it is public; the "
    "module's layers (three residual blocks of 3×3 convolutions with dilations 1, 2 and 4), the "
    "squared error, the recipe and the number of training images are not established.",
)
