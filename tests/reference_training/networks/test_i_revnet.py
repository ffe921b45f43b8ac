"""The i-RevNet: its shapes, its count of parameters, and above all its inverse."""

import copy
import itertools

import pytest
import torch
from torch.nn import functional

from reference_training.config import Network
from reference_training.networks.i_revnet import (
    CONFIGURATIONS,
    IMAGENET,
    InvertibleBlock,
    IRevNet,
    depth_to_space,
    i_revnet_like,
    space_to_depth,
)
from reference_training.networks.resnet import ResNet

CONFIGS = {
    "32 pixels": CONFIGURATIONS[8],
    "32 pixels, stem stride 1": CONFIGURATIONS[4],
    "a hundred blocks, as ImageNet's": (28, 72),
}


def images(side=32, dtype=torch.float32, count=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, side, side, generator=generator, dtype=torch.float64).to(dtype)


def network(config=CONFIGURATIONS[8], dtype=torch.float32):
    """In eval mode, with statistics that it has seen and weights of BN that are not 1 and 0."""
    torch.manual_seed(0)
    net = IRevNet(config, 10)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    with torch.no_grad():
        for _ in range(3):
            net(2 * images())
    return net.eval().to(dtype)


def tolerance(net, code):
    """Each block and its inverse round once, by eps/2 of the largest number at most.

    The residuals of a network with fresh weights hardly change what follows from it, so that the
    roundings add up: depth·eps·max|code|, doubled for what they do change.
    """
    return 2 * len(net.blocks) * torch.finfo(code.dtype).eps * code.abs().max().item()


@pytest.mark.parametrize("side", [1, 2, 4])
def test_space_to_depth_is_pixel_unshuffle_with_the_cells_first(side):
    x = images()
    theirs = functional.pixel_unshuffle(x, side)  # channels by colour, then by cell
    order = [
        colour * side**2 + cell for cell, colour in itertools.product(range(side**2), range(3))
    ]
    assert torch.equal(space_to_depth(x, side), theirs[:, order])
    assert torch.equal(depth_to_space(space_to_depth(x, side), side), x)


def test_a_block_is_the_papers_equation():
    torch.manual_seed(0)
    block = InvertibleBlock(4, 16, 2, first=False).double().eval()
    x, other = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64)
    y = other
    for norm, convolution, stride in ((0, 2, 2), (3, 5, 1), (6, 8, 1)):
        bn, weight = block.residual[norm], block.residual[convolution].weight
        mean, var = bn.running_mean.view(-1, 1, 1), bn.running_var.view(-1, 1, 1)
        y = functional.conv2d(((y - mean) / (var + bn.eps).sqrt()).relu(), weight, None, stride, 1)
    moved, total = block(x, other)
    assert torch.equal(moved, space_to_depth(other, 2))
    torch.testing.assert_close(total, space_to_depth(x, 2) + y, rtol=0, atol=1e-12)
    assert y.abs().max() > 0.05


def test_imagenets_network_has_the_published_size():
    """24, 96, 384, 1536 channels, a code of 3072x7x7, 122.0 M parameters of the decoder: the blocks
    with their batch normalisation."""
    with torch.device("meta"):
        net = IRevNet(IMAGENET, 1000)
        ends = [block.residual[-1].out_channels for block in net.blocks]
        assert ends == [24] * 6 + [96] * 16 + [384] * 72 + [1536] * 6
        code = net.encode(torch.empty(2, 3, 224, 224))
        assert code.shape == (2, 3072, 7, 7)
        assert net.decode(code).shape == (2, 3, 224, 224)
    expected, before = 0, 6
    for count, width in zip((6, 16, 72, 6), (24, 96, 384, 1536), strict=True):
        inner = width // 4
        for _ in range(count):
            expected += 9 * (before * inner + inner * inner + inner * width)
            expected += 2 * (before + inner + inner)
            before = width
    expected -= 2 * 6  # the first block does not normalise the image
    assert sum(weight.numel() for weight in net.blocks.parameters()) == expected == 122_041_212


def test_the_small_one_has_as_many_numbers_as_its_image_and_about_the_networks_parameters():
    for stride, shape in ((2, (192, 4, 4)), (1, (48, 8, 8))):
        model = ResNet(Network(stem_stride=stride), 10)
        net = i_revnet_like(model)
        code = net.encode(images())
        assert code.shape[1:] == shape
        assert code.numel() == images().numel()
        assert net(images()).shape == (4, 10)
    small = sum(weight.numel() for weight in i_revnet_like(ResNet(Network(), 10)).parameters())
    assert 1 < small / sum(weight.numel() for weight in ResNet(Network(), 10).parameters()) < 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_decode_inverts_encode_and_encode_decode(name, dtype):
    net, x = network(CONFIGS[name], dtype), images(dtype=dtype)
    code = net.encode(x)
    limit = tolerance(net, code)
    torch.testing.assert_close(net.decode(code), x, rtol=0, atol=limit)
    other = torch.randn(code.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    torch.testing.assert_close(net.encode(net.decode(other)), other, rtol=0, atol=limit)
    # It is no rearrangement of the image: the residuals take part.
    rearranged = space_to_depth(x, net.downsampling)
    assert (code.sort(1).values - rearranged.sort(1).values).abs().max() > 0.1


def test_after_training_the_error_is_the_condition_times_the_rounding():
    """With trained weights roundings may grow, but by the same factor in both precisions."""
    net = network().train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    labels = torch.arange(32) % 10
    for _ in range(10):
        optimizer.zero_grad()
        functional.cross_entropy(net(images(count=32)), labels).backward()
        optimizer.step()
    net.eval()
    condition = []
    with torch.no_grad():
        for dtype in (torch.float64, torch.float32):
            twin, x = copy.deepcopy(net).to(dtype), images(dtype=dtype)
            error = (twin.decode(twin.encode(x)) - x).abs().max().item()
            condition.append(error / torch.finfo(dtype).eps)
    assert condition[1] < 8 * condition[0]
    assert condition[0] < 1e4


def test_the_inverse_depends_on_its_own_code_alone():
    net, code = network(), torch.randn(4, 192, 4, 4)
    with torch.no_grad():
        # one image's convolutions may sum in another order than those of four
        torch.testing.assert_close(net.decode(code)[:1], net.decode(code[:1]), rtol=0, atol=1e-5)
        before = copy.deepcopy(net.state_dict())
        net.decode(code)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_inverse_is_differentiable():
    """Against finite differences."""
    net = network((1, 1), torch.float64)
    code = torch.randn(1, 192, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net.decode, (code,), fast_mode=True)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="33x32 cannot be cut into squares of 2x2"):
        network().encode(torch.zeros(1, 3, 33, 32))
    with pytest.raises(ValueError, match="cut into squares of 2x2"):
        network().encode(torch.zeros(1, 3, 36, 36))
    with pytest.raises(ValueError, match=r"16 times smaller.*--network.stem-stride of 1 or 2"):
        i_revnet_like(ResNet(Network(stem_stride=4), 10))
