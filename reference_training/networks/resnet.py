"""The CIFAR-style residual network of the small runs (He et al. 2016, Sec. 4.2)."""

from typing import NamedTuple

from torch import Tensor, nn

from reference_training.config import Network


class Tapped(NamedTuple):
    """A layer whose output is distilled."""

    layer: str  # its name in the network
    channels: int
    layout: str = "NCHW"


class Classifier(nn.Module):
    """What every method needs of a network: the layers that may be distilled, and the last one."""

    feature_layer: str
    shallow_layer: str
    shallow_channels: int
    fc: nn.Linear
    downsampling: int
    """The image's side over that of the deep feature."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """By which its input is normalised; its images have grey levels from 0 to 1 before that."""

    def tapped(self, layer: str) -> Tapped:
        """A layer by what recipes call it.

        Raises:
            ValueError: neither "deep" nor "shallow".
        """
        if layer not in ("deep", "shallow"):
            raise ValueError(f"the layer is {layer!r}; use deep or shallow.")
        if layer == "deep":
            return Tapped(self.feature_layer, self.fc.in_features)
        return Tapped(self.shallow_layer, self.shallow_channels)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch normalisation and a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn1(self.conv1(x)).relu()
        return (self.shortcut(x) + self.bn2(self.conv2(branch))).relu()


class ResNet(Classifier):
    """Images (B, 3, 32, 32) to logits (B, classes); `layer3` is the feature that is distilled."""

    feature_layer = "layer3"
    shallow_layer = "stem"

    def __init__(self, config: Network, classes: int) -> None:
        super().__init__()
        self.downsampling = 4 * config.stem_stride
        first, second, third = config.widths
        self.shallow_channels = first
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 3, config.stem_stride, 1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
        )
        self.layer1 = self._stage(first, first, 1, config.blocks)
        self.layer2 = self._stage(first, second, 2, config.blocks)
        self.layer3 = self._stage(second, third, 2, config.blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, classes)

    @staticmethod
    def _stage(channels_in: int, channels_out: int, stride: int, blocks: int) -> nn.Sequential:
        rest = (BasicBlock(channels_out, channels_out, 1) for _ in range(blocks - 1))
        return nn.Sequential(BasicBlock(channels_in, channels_out, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        return self.fc(self.pool(x).flatten(1))


def describe(config: Network) -> str:
    """The network's name for the report, as "ResNet-8 (16, 32, 64)"."""
    depth = 6 * config.blocks + 2
    return f"ResNet-{depth}, widths {config.widths}, stem stride {config.stem_stride}"
