"""Networks that mend an image before a classifier, which stays as it is, sees it: URIE.

Re-implemented from a description of Son et al., "URIE: Universal Image Enhancement for Visual
Recognition in the Wild" (ECCV 2020); at the sizes here it has the original's 671,859 parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_training.networks.resnet import Classifier

GRID = 4
"""The attention is computed on so many cells in each direction, whatever the image's size."""


def _pre_activated(norm: nn.Module, channels_in: int, channels_out: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return nn.Sequential(norm, nn.LeakyReLU(), convolution)


class SelectiveEnhancement(nn.Module):
    """Weighs batch normalisation against instance normalisation, for each channel and cell.

    y = w₁·a + w₂·b, a and b the branches' outputs, (w₁, w₂) = softmax of the attention on a + b.
    Features (B, channels_in, H, W) to (B, channels_out, H, W).
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.batch = _pre_activated(nn.BatchNorm2d(channels_in), channels_in, channels_out)
        self.instance = _pre_activated(nn.InstanceNorm2d(channels_in), channels_in, channels_out)
        cells = channels_out * GRID**2
        self.squeeze = nn.Linear(cells, channels_out, bias=False)
        self.excite = nn.Linear(channels_out, 2 * cells)  # one half for each branch

    def forward(self, x: Tensor) -> Tensor:
        batch, instance = self.batch(x), self.instance(x)
        pooled = functional.adaptive_avg_pool2d(batch + instance, GRID).flatten(1)
        scores = self.excite(self.squeeze(pooled).relu())
        weights = scores.unflatten(1, (2, -1, GRID, GRID)).softmax(1)
        first, second = (functional.interpolate(part, x.shape[-2:]) for part in weights.unbind(1))
        return first * batch + second * instance


class URIE(nn.Module):
    """A U-Net of selective enhancement modules: images (B, 3, H, W) to images of the same shape.

    The network's output is added to the image. H and W are multiples of 4 in the original; where
    halving leaves a remainder, features are scaled to the size of the skip connection.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 9, padding=4)
        self.down1 = SelectiveEnhancement(32, 64)
        self.down2 = SelectiveEnhancement(64, 64)
        self.up1 = SelectiveEnhancement(64 + 64, 32)
        self.up2 = SelectiveEnhancement(32 + 32, 16)
        self.last = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        full = self.first(images)
        half = self.down1(functional.max_pool2d(full, 2))
        quarter = self.down2(functional.max_pool2d(half, 2))
        upper = self.up1(_joined(half, quarter))
        return images + self.last(self.up2(_joined(full, upper)))


def _joined(skip: Tensor, low: Tensor) -> Tensor:
    """The skip connection and the features from below, at its resolution."""
    size = skip.shape[-2:]
    scaled = functional.interpolate(low, size, mode="bilinear", align_corners=True)
    return torch.cat([skip, scaled], dim=1)


class EnhancedClassifier(Classifier):
    """An enhancer and a frozen classifier, in eval mode for ever: images (B, 3, H, W) to logits."""

    def __init__(self, enhancer: nn.Module, classifier: Classifier) -> None:
        super().__init__()
        self.enhancer = enhancer
        self.classifier = classifier.requires_grad_(False)
        self.feature_layer = f"classifier.{classifier.feature_layer}"
        self.shallow_layer = f"classifier.{classifier.shallow_layer}"
        self.shallow_channels = classifier.shallow_channels
        self.train(self.training)

    @property
    def fc(self) -> nn.Linear:  # type: ignore[override]
        return self.classifier.fc

    def train(self, mode: bool = True) -> "EnhancedClassifier":
        super().train(mode)
        self.classifier.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.enhancer(images))
