"""The numbers in the figures, and which feature they show."""

from dataclasses import replace

import pytest
import torch

from reference_training.config import SHORT, Network, UEMOptions
from reference_training.data.images import Dataset
from reference_training.data.pairs import normalised
from reference_training.data.samples import InMemory
from reference_training.evaluation import CorruptionOptions, OnTheFly
from reference_training.evaluation.trained import Trained
from reference_training.experiments.paper_figures import (
    FIGURES,
    Material,
    closeness,
    shallow_feature,
)
from reference_training.methods import METHODS
from reference_training.networks.resnet import ResNet
from reference_training.paper.experiments import EXPERIMENTS
from reference_training.runtime.errors import RunError
from ulfd_torch import UEM


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
    torch.testing.assert_close(shallow_feature(network, normalised(images)), plain)
    step = METHODS["ddp"].make_step(network, SHORT, UEMOptions())
    for weight in step.model.inserted.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    found = shallow_feature(step.eval().model, normalised(images))
    torch.testing.assert_close(found, step.model.inserted(plain))
    assert (found - plain).abs().max() > 0.01


@pytest.fixture
def material() -> Material:
    """Random networks, and 11 images of 3 classes in batches of 4: the last has only 3."""
    torch.manual_seed(0)
    images, labels = torch.randint(0, 256, (11, 3, 32, 32), dtype=torch.uint8), torch.arange(11) % 3
    dataset = Dataset("noise", images, labels, images, labels, 3, False, "", "")
    network, uem = ResNet(Network(), 3).eval(), UEM.official(64).eval()
    return Material(
        network=lambda row: Trained(row.training, network, uem, network.feature_layer),
        vanilla=lambda: network,
        data=OnTheFly(InMemory(dataset), CorruptionOptions(frost="procedural")),
        preprocess=normalised,
        evaluated=torch.arange(11),
        sample=torch.arange(11),
        batch=4,
        seed=0,
    )


@pytest.mark.parametrize("name", ["figure1", "figure2", "figure4"])
def test_the_size_of_a_batch_changes_no_number(material, name):
    experiment = EXPERIMENTS[name]
    kind = FIGURES[experiment.figure]
    parts, whole = (kind.draw(experiment, replace(material, batch=size)) for size in (4, 100))
    assert parts.images == whole.images == 11
    assert parts.numbers.keys() == whole.numbers.keys()
    for key, found in parts.numbers.items():
        assert found == pytest.approx(whole.numbers[key], rel=1e-5)


def test_figure_4_needs_a_uem(material):
    without = replace(material, network=lambda row: Trained(row.training, material.vanilla()))
    with pytest.raises(RunError, match="ulfd has no UEM, whose uncertainty Figure 4 shows"):
        FIGURES["uncertainty"].draw(EXPERIMENTS["figure4"], without)
