"""The numbers in the figures, and which feature they show."""

import pytest
import torch

from reference_training.config import SHORT, Network, UEMOptions
from reference_training.data.pairs import normalised
from reference_training.experiments.paper_figures import closeness, shallow_feature
from reference_training.methods import METHODS
from reference_training.networks.resnet import ResNet


def test_closeness_is_a_distance_in_units_of_the_classes():
    """Three classes at the corners of a triangle with sides 3, 4 and 5; all images move by 1."""
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    labels = torch.arange(3).repeat_interleave(4)
    within = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]]).repeat(3, 1)
    clean = corners[labels] + within
    assert closeness(clean, clean + torch.tensor([0.6, 0.8]), labels) == pytest.approx(1 / 4)
    assert closeness(clean, clean, labels) == 0


def test_the_shallow_feature_is_what_the_next_layer_sees():
    torch.manual_seed(0)
    network = ResNet(Network(), 10).eval()
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    plain = network.stem(normalised(images))
    torch.testing.assert_close(shallow_feature(network, images), plain)
    step = METHODS["ddp"].make_step(network, SHORT, UEMOptions())
    for weight in step.model.inserted.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    found = shallow_feature(step.eval().model, images)
    torch.testing.assert_close(found, step.model.inserted(plain))
    assert (found - plain).abs().max() > 0.01
