"""Which sample and which corruption come when."""

from collections import Counter

import torch

from reference_training.corruptions import SEEN, SEVERITIES
from reference_training.corruptions.random import Random
from reference_training.data.sampling import cycle, independent, samples_at


def test_every_epoch_has_every_sample_once():
    drawn = samples_at(torch.arange(100), seed=1, total=25).view(4, 25)
    assert (drawn.sort(1).values == torch.arange(25)).all()
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(samples_at(torch.arange(40, 50), seed=1, total=25), drawn.flatten()[40:50])


def test_a_cycle_has_every_type_and_severity_once():
    positions = torch.arange(75 * 40)
    names, severities = cycle(Random(torch.zeros(1, dtype=torch.int64)), positions, 5)
    pairs = list(zip(names, severities, strict=True))
    for first in range(0, len(pairs), 75):
        assert len(set(pairs[first : first + 75])) == 75
    assert pairs[:75] != pairs[75:150]
    again = cycle(Random(torch.zeros(1, dtype=torch.int64)), positions[100:110], 5)
    assert list(zip(*again, strict=True)) == pairs[100:110]
    # The official draw takes a type first: the first of a cycle is uniform over the 15, and a type
    # that is drawn five times early is over early.
    firsts = Counter(name for name, _ in pairs[::75])
    assert len(firsts) > 10


def test_independent_draws_are_uniform():
    count = 15_000
    draws = Random(torch.arange(count))
    names, severities = independent(draws, torch.arange(count), 0)
    table = Counter(zip(names, severities, strict=True))
    assert len(table) == len(SEEN) * len(SEVERITIES)
    # 200 expected in each of 75: six standard deviations
    assert all(abs(number - 200) < 6 * 200**0.5 for number in table.values())
