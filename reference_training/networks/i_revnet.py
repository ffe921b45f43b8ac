"""The i-RevNet: a classifier without loss of information up to its last layers, and its inverse.

Written from the paper (Jacobsen et al., ICLR 2018). Space is traded for channels, 3 of them at full
resolution becoming 3·S² at 1/S of it, so that nothing has to be padded or dropped.
"""

from collections.abc import Mapping

from torch import Tensor, cat, nn
from torch.nn import functional

from reference_training.networks.resnet import Classifier

COLOURS = 3
STRIDE = 2
"""By how much both sides shrink before the first stage, and again in each stage's first block."""
BOTTLENECK = 4
"""How many times fewer channels there are inside a block."""
IMAGENET = (6, 16, 72, 6)
"""For 224×224: two streams of 24, 96, 384 and 1536 channels, a code of 3072×7×7."""
CONFIGURATIONS: Mapping[int, tuple[int, ...]] = {
    32: IMAGENET,
    # For 32×32, of about the size of the small ResNet.
    8: (4, 4),
    4: (8,),
}
"""The blocks of each stage by down-sampling: an i-RevNet stands beside a classifier whose deep
feature is of that size."""


def space_to_depth(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) to (B, side²·C, H/side, W/side): the cells of a square become channels.

    The cell is the slower index, so that each half of the channels still shows all colours.

    Raises:
        ValueError: H or W is no multiple of `side`.
    """
    height, width = x.shape[2:]
    if height % side or width % side:
        raise ValueError(f"{height}x{width} cannot be cut into squares of {side}x{side}.")
    cells = functional.pixel_unshuffle(x, side).unflatten(1, (-1, side**2))
    return cells.transpose(1, 2).flatten(1, 2)


def depth_to_space(x: Tensor, side: int) -> Tensor:
    """The inverse of `space_to_depth`."""
    cells = x.unflatten(1, (side**2, -1)).transpose(1, 2)
    return functional.pixel_shuffle(cells.flatten(1, 2), side)


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

    def __init__(self, channels_in: int, channels: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.stride = stride
        self.residual = _residual(channels_in, channels, stride, channels // BOTTLENECK, first)

    def forward(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        moved = space_to_depth(other, self.stride)
        return moved, space_to_depth(x, self.stride) + self.residual(other)

    def inverse(self, moved: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """The pair from which `forward` made this one; batch normalisation is to be frozen."""
        other = depth_to_space(moved, self.stride)
        return depth_to_space(total - self.residual(other), self.stride), other


class IRevNet(Classifier):
    """Images (B, 3, H, W) to logits (B, classes), through a code that is inverted by `decode`.

    The code (B, 3·D², H/D, W/D), with D the down-sampling, has as many numbers as the image.

    Args:
        blocks: how many each stage has.
        classes: how many.
    """

    feature_layer = "activation"
    shallow_layer = "blocks.0.residual"
    shallow_channels = COLOURS * STRIDE**4 // 2

    def __init__(self, blocks: tuple[int, ...], classes: int) -> None:
        super().__init__()
        width, self.downsampling = COLOURS * STRIDE**2 // 2, STRIDE
        self.blocks = nn.ModuleList()
        for count in blocks:
            self.downsampling *= STRIDE
            channels = COLOURS * self.downsampling**2 // 2  # of one of the two streams
            for index in range(count):
                stride = STRIDE if index == 0 else 1
                first = len(self.blocks) == 0
                self.blocks.append(InvertibleBlock(width, channels, stride, first=first))
                width = channels
        self.activation = nn.Sequential(nn.BatchNorm2d(2 * width), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2 * width, classes)

    def encode(self, images: Tensor) -> Tensor:
        """The code, which has as many numbers as the images.

        Raises:
            ValueError: the images' sides are no multiples of the down-sampling.
        """
        x, other = space_to_depth(images, STRIDE).chunk(2, 1)
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
        return depth_to_space(cat([x, other], 1), STRIDE)

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
