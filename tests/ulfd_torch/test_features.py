"""Tapping a layer: plain, nested, compiled, wrapped, and every way to see nothing."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from ulfd_torch import FeatureTap


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Flatten()), nn.LazyLinear(2)
    )


def test_takes_the_layers_output():
    network, images = resnet18(), torch.rand(2, 3, 64, 64)
    with FeatureTap(network, "layer4") as deep, FeatureTap(network, "layer1.0.conv1") as shallow:
        network(images)
        assert deep.take().shape == (2, 512, 2, 2)
        assert shallow.take().shape == (2, 64, 16, 16)


def test_the_feature_carries_gradients():
    network = model()
    with FeatureTap(network, "1.0") as tap:
        network(torch.rand(2, 3, 8, 8))
        tap.take().sum().backward()
    assert network[0].weight.grad.abs().sum() > 0


def test_an_unknown_layer_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no layer 'layer9'.*'layer4'"):
        FeatureTap(resnet18(), "layer9")


def test_nothing_seen_is_an_error():
    network = model()
    tap = FeatureTap(network, "0")
    with pytest.raises(RuntimeError, match="saw nothing"):
        tap.take()
    network(torch.rand(2, 3, 8, 8))
    tap.take()
    with pytest.raises(RuntimeError, match="saw nothing"):  # a stale feature is never returned
        tap.take()


def test_closing_removes_the_hook():
    network = model()
    with FeatureTap(network, "0"):
        pass
    assert not network[0]._forward_hooks


def test_a_layer_that_returns_no_tensor():
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    network = nn.Sequential(Two())
    with FeatureTap(network, "0"), pytest.raises(TypeError, match="returns a tuple"):
        network(torch.zeros(1))


def test_compiled_and_data_parallel_wrappers_are_seen_through():
    network, images = model(), torch.rand(2, 3, 8, 8)
    network(images)
    plain = FeatureTap(network, "1")
    expected = (network(images), plain.take())[1]
    plain.close()
    for wrapped in (torch.compile(network, backend="eager"), nn.DataParallel(network)):
        with FeatureTap(wrapped, "1") as tap:
            wrapped(images)
            torch.testing.assert_close(tap.take(), expected)
