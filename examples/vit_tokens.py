"""Tokens of a vision transformer, (B, T, D): `python -m examples.vit_tokens`.

The UEM of the paper is convolutional. Here σ is one number a token, (B, T, 1), by a linear layer:
which patch is not to be trusted.
"""

import torch
import tyro
from torch import nn
from torchvision.models import VisionTransformer

from examples.pairs import accuracy, pairs
from ulfd_torch import SelfDistillation, ULFDLoss


def uncertainty_head(width: int) -> nn.Module:
    """Tokens (B, T, D) to σ (B, T, 1), which is 0 at first: the loss begins as the MSE."""
    head = nn.Linear(width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def main(iterations: int = 200, batch_size: int = 32, width: int = 192):
    """Trains a small transformer on 32×32 photographs of ten classes."""
    model = VisionTransformer(
        image_size=32,
        patch_size=4,
        num_layers=4,
        num_heads=3,
        hidden_dim=width,
        mlp_dim=2 * width,
        num_classes=10,
    )
    # What "encoder" returns is what the classifier reads: all tokens, the class token first.
    loss = ULFDLoss(weight=0.1, clamp=(-10, 10))
    step = SelfDistillation(model, layer="encoder", uem=uncertainty_head(width), loss=loss)
    optimizer = torch.optim.AdamW(step.parameters(), lr=1e-3)
    for clean, degraded, labels in pairs(iterations, batch_size):
        optimizer.zero_grad()
        step(clean, degraded, labels).total.backward()
        optimizer.step()
    print(accuracy(model))
    return step


if __name__ == "__main__":
    tyro.cli(main)
