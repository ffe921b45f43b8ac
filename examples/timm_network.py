"""Any timm network, its layer found by name: `python -m examples.timm_network --name resnet18`.

Which layer: the last feature before pooling, which `suggest_layers` puts first. `UEM.for_layer`
learns its channels and layout from one batch: convolutional networks, Swin and ViT alike (the last
two are made for one size of image: give `create_model` an img_size=32 here).
Needs `pip install 'ulfd[train,timm]'`.
"""

import timm
import torch
import tyro
from torch import Tensor
from torch.nn.functional import cross_entropy

from examples.pairs import accuracy, pairs
from ulfd_torch import UEM, SelfDistillation, ULFDLoss, suggest_layers


def without_a_tap(
    step: SelfDistillation, clean: Tensor, degraded: Tensor, labels: Tensor
) -> Tensor:
    """The same loss by what every timm network has; its feature is that before the pooling."""
    student = step.model.forward_features(degraded)
    teacher = step.model.forward_features(clean)
    loss = step.loss(student, teacher, step.uem(student))
    for feature in (student, teacher):
        loss = loss + cross_entropy(step.model.forward_head(feature), labels)
    return loss


def main(
    name: str = "resnet18", layer: str | None = None, iterations: int = 200, batch_size: int = 32
):
    """Trains `name` on 32×32 photographs of ten classes."""
    model = timm.create_model(name, pretrained=False, num_classes=10)
    example = torch.rand(2, 3, 32, 32)
    layer = layer or suggest_layers(model, example)[0].name
    loss = ULFDLoss(weight=0.1, clamp=(-10, 10))
    uem = UEM.for_layer(model, layer, example)
    step = SelfDistillation(model, layer=layer, uem=uem, loss=loss)
    optimizer = torch.optim.AdamW(step.parameters(), lr=1e-3)
    for clean, degraded, labels in pairs(iterations, batch_size):
        optimizer.zero_grad()
        step(clean, degraded, labels).total.backward()
        optimizer.step()
    print(accuracy(model))
    return step


if __name__ == "__main__":
    tyro.cli(main)
