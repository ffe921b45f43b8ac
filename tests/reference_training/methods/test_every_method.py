"""For every method: what is frozen stays, what is trained moves, and a stop changes nothing."""

import copy

import pytest
import torch

from reference_training.config import SHORT, Network, UEMOptions
from reference_training.data import load
from reference_training.data.pairs import Pairs
from reference_training.methods import METHODS
from reference_training.networks.resnet import ResNet
from reference_training.runtime.stop import Interrupted
from reference_training.training import loop
from reference_training.training.schedule import Schedule, stepwise
from tests.reference_training.methods.test_methods import Counter


def pairs(name):
    method = METHODS[name]
    return Pairs(
        load("digits"),
        batch_size=16,
        seed=0,
        second=method.second,
        second_views=method.second_views,
        frost="procedural",
    )


def new_step(name):
    torch.manual_seed(0)
    return METHODS[name].make_step(ResNet(Network(), 10), SHORT, UEMOptions())


@pytest.mark.parametrize("name", METHODS)
def test_what_is_frozen_stays_and_what_is_trained_moves(name):
    step = new_step(name).train()
    before = copy.deepcopy(step.state_dict())
    optimizer = torch.optim.Adam(step.parameters(), lr=1e-3)
    for batch in pairs(name).batches(0, 3):
        optimizer.zero_grad()
        step(batch).loss.backward()
        optimizer.step()
    trained = {key for key, weight in step.named_parameters() if weight.requires_grad}
    normalised = {  # batch normalisation in train mode averages what it sees
        f"{key}.{buffer}"
        for key, module in step.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d) and module.training
        for buffer in ("running_mean", "running_var", "num_batches_tracked")
    }
    moved = {key for key, value in step.state_dict().items() if not torch.equal(value, before[key])}
    assert trained
    assert moved == trained | normalised


@pytest.mark.parametrize("name", METHODS)
def test_stopped_and_continued_it_gives_the_same_bits(name, tmp_path):
    def train(folder, end_after=float("inf")):
        step = new_step(name)
        schedule = Schedule(6, 1e-3, stepwise((0.5,)))
        link = Counter(end_after)
        loop.TrainingLoop(
            step, pairs(name), schedule, folder=tmp_path / folder, checkpoint_every=4, link=link
        ).train()
        return step

    whole = train("whole").state_dict()
    with pytest.raises(Interrupted):
        train("stopped", 3)
    resumed = train("stopped").state_dict()
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)
    fresh = new_step(name)
    fresh.load_state_dict(whole)  # what an evaluation does
    images = torch.rand(2, 3, 32, 32)
    expected = train("whole").eval().model(images)
    assert torch.equal(fresh.eval().model(images), expected)
