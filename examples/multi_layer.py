"""Several layers at once, each with a UEM of its own: `python -m examples.multi_layer`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from examples.pairs import accuracy, pairs
from ulfd_torch import UEM, FeatureTap, ULFDLoss


class MultiLayerDistillation(nn.Module):
    """λ · mean over the layers of L_ULFD(z, ẑ, σ).

    Args:
        model: any network, that calls each of the layers once in a pass.
        channels: of each layer, by its name in `model.named_modules()`.
        weight: λ.
        options: of every `UEM`.
    """

    def __init__(
        self, model: nn.Module, channels: Mapping[str, int], weight: float = 0.1, **options: Any
    ) -> None:
        super().__init__()
        self.taps = [FeatureTap(model, layer) for layer in channels]
        self.uems = nn.ModuleList(UEM(number, **options) for number in channels.values())
        self.criterion = ULFDLoss(weight=weight / len(channels), clamp=(-10, 10))

    def take(self) -> list[Tensor]:
        """The features of the pass that was just made."""
        return [tap.take() for tap in self.taps]

    def forward(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
        """The loss; the clean image's features are not moved."""
        layers = zip(self.uems, students, teachers, strict=True)
        return torch.stack(
            [self.criterion(z_hat, z.detach(), uem(z_hat)) for uem, z_hat, z in layers]
        ).sum()


def main(iterations: int = 200, batch_size: int = 32):
    """Trains a ResNet-18 on 32×32 photographs of ten classes."""
    model = resnet18(num_classes=10)
    layers = {"layer2": 128, "layer3": 256, "layer4": 512}
    distillation = MultiLayerDistillation(model, layers)
    optimizer = torch.optim.AdamW([*model.parameters(), *distillation.parameters()], lr=1e-3)
    for clean, degraded, labels in pairs(iterations, batch_size):
        loss = cross_entropy(model(degraded), labels)
        students = distillation.take()
        loss = loss + cross_entropy(model(clean), labels)
        loss = loss + distillation(students, distillation.take())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(accuracy(model))
    return model, distillation


if __name__ == "__main__":
    tyro.cli(main)
