"""The i-RevNet: a classifier without loss of information up to its last layers, and its inverse.

Written from the paper (Jacobsen et al., ICLR 2018). Space is traded for channels, 3 of them at full
resolution becoming 3·S² at 1/S of it, so that nothing has to be padded or dropped.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, cat, nn

from reference_training.networks.resnet import Classifier

COLOURS = 3


@dataclass(frozen=True)
class IRevNetConfig:
    """What an i-RevNet is made of; its channels follow, for it must neither add nor lose numbers.

    Raises:
        ValueError: the image's channels cannot be shared among two streams, or a bottleneck would
            have no channel.
    """

    blocks: tuple[int, ...]
    """Of each stage."""
    strides: tuple[int, ...]
    """Of each stage's first block."""
    initial: int = 2
    """By how much both sides of the image shrink before the first stage."""
    bottleneck: int = 4
    """How many times fewer channels there are inside a block."""

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.strides) or self.initial % 2:
            raise ValueError(
                f"{self} needs as many strides as blocks, and an even initial down-sampling: two "
                "streams share the channels."
            )
        if self.bottleneck > min(self.channels):
            raise ValueError(f"a bottleneck of {self.bottleneck} leaves nothing of {self.channels}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Of one of the two streams, in each stage."""
        sides = (self.initial * math.prod(self.strides[: n + 1]) for n in range(len(self.strides)))
        return tuple(COLOURS * side**2 // 2 for side in sides)

    @property
    def downsampling(self) -> int:
        """The image's side over that of the code."""
        return self.initial * math.prod(self.strides)

    @property
    def code_channels(self) -> int:
        """3·downsampling²: as many numbers as the image has."""
        return COLOURS * self.downsampling**2


IMAGENET = IRevNetConfig(blocks=(6, 16, 72, 6), strides=(2, 2, 2, 2))
"""For 224×224: two streams of 24, 96, 384 and 1536 channels, a code of 3072×7×7."""
CONFIGURATIONS: Mapping[int, IRevNetConfig] = {
    IMAGENET.downsampling: IMAGENET,
    # For 32×32, of about the size of the small ResNet.
    8: IRevNetConfig(blocks=(4, 4), strides=(2, 2)),
    4: IRevNetConfig(blocks=(8,), strides=(2,)),
}
"""By down-sampling: an i-RevNet stands beside a classifier whose deep feature is of that size."""


def space_to_depth(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) to (B, side²·C, H/side, W/side): the cells of a square become channels.

    The cell is the slower index, so that each half of the channels still shows all colours.

    Raises:
        ValueError: H or W is no multiple of `side`.
    """
    batch, channels, height, width = x.shape
    if height % side or width % side:
        raise ValueError(f"{height}x{width} cannot be cut into squares of {side}x{side}.")
    cut = x.reshape(batch, channels, height // side, side, width // side, side)
    return cut.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // side, width // side)


def depth_to_space(x: Tensor, side: int) -> Tensor:
    """The inverse of `space_to_depth`."""
    batch, channels, height, width = x.shape
    cut = x.reshape(batch, side, side, channels // side**2, height, width)
    return cut.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * side, width * side)


def _residual(channels_in: int, channels: int, stride: int, inner: int, first: bool) -> nn.Module:
    """F: three 3×3 convolutions, each behind batch normalisation and ReLU.

    The network's first one is not, since it sees pixels.
    """

    def activation(width: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(width), nn.ReLU()]

    return nn.Sequential(
        *([] if first else activation(channels_in)),
        nn.Conv2d(channels_in, inner, 3, stride, 1, bias=False),
        *activation(inner),
        nn.Conv2d(inner, inner, 3, 1, 1, bias=False),
        *activation(inner),
        nn.Conv2d(inner, channels, 3, 1, 1, bias=False),
    )


class InvertibleBlock(nn.Module):
    """(x, x̃) to (S x̃, S x + F(x̃)), with S = `space_to_depth`: invertible whatever F is."""

    def __init__(
        self, channels_in: int, channels: int, stride: int, bottleneck: int, *, first: bool
    ) -> None:
        super().__init__()
        self.stride = stride
        self.residual = _residual(channels_in, channels, stride, channels // bottleneck, first)

    def forward(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        moved = space_to_depth(other, self.stride)
        return moved, space_to_depth(x, self.stride) + self.residual(other)

    def inverse(self, moved: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """The pair from which `forward` made this one; batch normalisation is to be frozen."""
        other = depth_to_space(moved, self.stride)
        return depth_to_space(total - self.residual(other), self.stride), other


class IRevNet(Classifier):
    """Images (B, 3, H, W) to logits (B, classes), through a code that is inverted by `decode`.

    Args:
        config: the code has the shape (B, code_channels, H/downsampling, W/downsampling).
        classes: how many.
    """

    feature_layer = "activation"
    shallow_layer = "blocks.0.residual"

    def __init__(self, config: IRevNetConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.downsampling = config.downsampling
        width = COLOURS * config.initial**2 // 2
        blocks: list[InvertibleBlock] = []
        for count, stride, channels in zip(
            config.blocks, config.strides, config.channels, strict=True
        ):
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(
                    InvertibleBlock(
                        width, channels, step, config.bottleneck, first=len(blocks) == 0
                    )
                )
                width = channels
        self.blocks = nn.ModuleList(blocks)
        self.activation = nn.Sequential(nn.BatchNorm2d(config.code_channels), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(config.code_channels, classes)

    def shallow_channels(self) -> int:
        return self.config.channels[0]

    def encode(self, images: Tensor) -> Tensor:
        """The code, which has as many numbers as the images.

        Raises:
            ValueError: the images' sides are no multiples of the down-sampling.
        """
        x, other = space_to_depth(images, self.config.initial).chunk(2, 1)
        for block in self.blocks:
            x, other = block(x, other)
        return cat([x, other], 1)

    def decode(self, code: Tensor) -> Tensor:
        """The images of a code, differentiable; the inverse of `encode` in eval mode.

        In train mode it would be another function, since batch normalisation then depends on what
        it sees.
        """
        x, other = code.chunk(2, 1)
        for block in reversed(self.blocks):
            assert isinstance(block, InvertibleBlock)
            x, other = block.inverse(x, other)
        return depth_to_space(cat([x, other], 1), self.config.initial)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(self.activation(self.encode(images))).flatten(1))


def i_revnet_like(model: Classifier) -> IRevNet:
    """An i-RevNet with random weights, whose code is as wide and high as the model's deep feature.

    Raises:
        ValueError: there is no configuration of that size.
    """
    if model.downsampling not in CONFIGURATIONS:
        raise ValueError(
            f"the network's deep feature is {model.downsampling} times smaller than its image, but "
            f"there are i-RevNets for {sorted(CONFIGURATIONS)} alone; use a --network.stem-stride "
            "of 1 or 2, or add an entry to i_revnet.CONFIGURATIONS."
        )
    return IRevNet(CONFIGURATIONS[model.downsampling], model.fc.out_features)
