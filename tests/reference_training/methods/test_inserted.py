"""A module after a layer: the halves are the network, and the module stands between them."""

import pytest
import torch
from torch import nn

from reference_training.config import Network
from reference_training.methods.inserted import Inserted
from reference_training.networks.backbones import ARCHITECTURES
from reference_training.networks.resnet import ResNet
from ulfd_torch import FeatureTap


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return self.factor * x


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_without_a_module_the_halves_are_the_network(arch):
    torch.manual_seed(0)
    network = ARCHITECTURES[arch].make(10).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        logits = network(images)
        for layer in ("shallow", "deep"):
            name, channels, _ = network.tapped(layer)
            model = Inserted(network, name, nn.Identity())
            assert model.before(images).shape[1] == channels
            assert torch.equal(model(images), logits)


def test_the_module_sees_the_layer_and_the_rest_sees_the_module():
    torch.manual_seed(0)
    network = ResNet(Network(), 10).eval()
    model = Inserted(network, network.feature_layer, Times(3.0))
    images = torch.rand(2, 3, 32, 32)
    layer, channels, _ = model.tapped("deep")
    with FeatureTap(model, layer) as own, FeatureTap(model, "inserted") as after:
        logits = model(images)
        feature, replaced = own.take(), after.take()
    assert torch.equal(feature, model.before(images))
    assert torch.equal(replaced, 3 * feature)
    expected = 3 * (network(images) - network.fc.bias) + network.fc.bias  # the rest is affine
    torch.testing.assert_close(logits, expected)
    assert (channels, model.tapped("shallow")) == (64, ("network.stem", 16, "NCHW"))
    assert model.fc is network.fc
    assert len(model.state_dict()) == len(network.state_dict()) + 1
