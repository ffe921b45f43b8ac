"""Which sample and which corruption come when: pure functions of the seed and the position.

The pairs of a run form one endless sequence, and a batch is a stretch of it. What stands where
depends neither on the number of processes nor on the moment at which a run was continued.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from reference_training.corruptions import SEEN, SEVERITIES
from reference_training.corruptions.random import Random, splitmix64

Drawn = tuple[list[str], list[int]]
"""A corruption's name and a severity for each pair."""

CYCLES = 1 << 40  # the domain of the cycles' draws; the epochs' domains are small numbers


@lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, total: int) -> Tensor:
    return Random(torch.tensor([seed]), domain=epoch).uniform(total)[0].argsort()


def samples_at(positions: Tensor, *, seed: int, total: int) -> Tensor:
    """The samples at some positions of the sequence.

    Each epoch is shuffled anew, and they follow one another, so a batch may span two of them.

    Args:
        positions: int64 (B,), counted from 0.
        seed: of the run.
        total: how many samples there are.

    Returns:
        int64 (B,), indices of samples.
    """
    epochs = positions // total
    samples = torch.empty_like(positions)
    for epoch in epochs.unique().tolist():
        members = epochs == epoch
        samples[members] = _epoch(seed, epoch, total)[positions[members] % total]
    return samples


def pair_seeds(seed: int, iterations: Tensor, samples: Tensor) -> Tensor:
    """One number for each (seed, iteration, sample): the root of all that is random in a pair."""
    return splitmix64(splitmix64(torch.tensor(seed), iterations), samples)


def independent(draws: Random, positions: Tensor, seed: int) -> Drawn:
    """Type and severity uniform over the 15 × 5, each pair for itself (the paper's text).

    Args:
        draws: one generator for each pair.
        positions, seed: not needed; as in `cycle`.
    """
    kinds = draws.integers(0, len(SEEN), 1)[:, 0].tolist()
    severities = draws.integers(SEVERITIES[0], SEVERITIES[-1] + 1, 1)[:, 0].tolist()
    return [SEEN[kind] for kind in kinds], severities


@lru_cache(maxsize=16)
def _cycle(seed: int, number: int) -> list[tuple[str, int]]:
    """One cycle through the 75: a type that has severities left, then one of these."""
    draws = Random(torch.tensor([seed]), domain=CYCLES + number)
    uniform = draws.uniform(len(SEEN) * len(SEVERITIES), 2)[0].tolist()
    left = {name: list(SEVERITIES) for name in SEEN}
    order = []
    for first, second in uniform:
        name = list(left)[int(first * len(left))]
        order.append((name, left[name].pop(int(second * len(left[name])))))
        if not left[name]:
            del left[name]
    return order


def cycle(draws: Random, positions: Tensor, seed: int) -> Drawn:
    """Without replacement through the 75 (type, severity), in the official code's way.

    There each data worker has cycles of its own; here they run through the whole sequence.

    Args:
        draws: not needed; as in `independent`.
        positions: int64 (B,), where in the sequence the pairs stand.
        seed: of the run.
    """
    length = len(SEEN) * len(SEVERITIES)
    drawn = [_cycle(seed, at // length)[at % length] for at in positions.tolist()]
    return [name for name, _ in drawn], [severity for _, severity in drawn]


CORRUPTION_SAMPLINGS: dict[str, Callable[[Random, Tensor, int], Drawn]] = {
    "cycle": cycle,
    "independent": independent,
}
"""How the corruptions of the pairs are drawn, by name."""
