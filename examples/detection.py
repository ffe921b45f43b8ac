"""A detector that shall find things in degraded images: `python -m examples.detection`.

torchvision's FCOS on a feature pyramid (FPN). The levels of the clean image's pyramid teach those
of the degraded one's; any detector of torchvision takes FCOS's place.
"""

import torch
import tyro
from torch import nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from examples.multi_layer import MultiLayerDistillation
from examples.pairs import scenes

# The pyramid itself returns a dict, which is no tensor to tap; the layers that make its levels do.
LEVELS = {f"backbone.fpn.layer_blocks.{level}": 256 for level in range(4)}


def main(iterations: int = 200, batch_size: int = 8, size: int = 64):
    """Trains on scenes of 64×64 with four garments of ten classes."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, trainable_layers=5, norm_layer=nn.BatchNorm2d
    )
    # One size: where a detector draws it, the two images of a pair would differ.
    detector = FCOS(backbone, num_classes=11, min_size=size, max_size=size)
    distillation = MultiLayerDistillation(detector, LEVELS, weight=0.1)
    optimizer = torch.optim.AdamW([*detector.parameters(), *distillation.parameters()], lr=3e-4)
    for clean, degraded, boxes, _ in scenes(iterations, batch_size):
        losses = detector(list(degraded), boxes)
        students = distillation.take()
        of_clean = detector(list(clean), boxes)
        loss = distillation(students, distillation.take())
        loss = loss + sum(losses.values()) + sum(of_clean.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss of the last batch: {loss.item():.2f}")
    return detector, distillation


if __name__ == "__main__":
    tyro.cli(main)
