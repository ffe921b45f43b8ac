"""Semantic segmentation of degraded images: `python -m examples.segmentation`.

A ResNet with a feature pyramid (FPN) and a head that adds its levels up; every level distilled.
"""

import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from examples.detection import LEVELS
from examples.multi_layer import MultiLayerDistillation
from examples.pairs import scenes


class Segmenter(nn.Module):
    """Images (B, 3, H, W) to logits (B, classes, H, W)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = resnet_fpn_backbone(
            backbone_name="resnet18", weights=None, trainable_layers=5, norm_layer=nn.BatchNorm2d
        )
        self.classifier = nn.Conv2d(256, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """The pyramid's levels, brought to the finest one's size, added and classified."""
        finest, *levels = self.backbone(images).values()
        for level in levels:
            finest = finest + interpolate(level, finest.shape[2:], mode="bilinear")
        return interpolate(self.classifier(finest.relu()), images.shape[2:], mode="bilinear")


def main(iterations: int = 200, batch_size: int = 8):
    """Trains on scenes of 64×64 with four garments of ten classes."""
    model = Segmenter(classes=11)
    distillation = MultiLayerDistillation(model, LEVELS, weight=0.1)
    optimizer = torch.optim.AdamW([*model.parameters(), *distillation.parameters()], lr=1e-3)
    for clean, degraded, _, classes in scenes(iterations, batch_size):
        loss = cross_entropy(model(degraded), classes)
        students = distillation.take()
        loss = loss + cross_entropy(model(clean), classes)
        loss = loss + distillation(students, distillation.take())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss of the last batch: {loss.item():.2f}")
    return model, distillation


if __name__ == "__main__":
    tyro.cli(main)
