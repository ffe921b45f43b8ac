import math

import numpy as np
import pytest
import torch
from scipy import stats

from reference_training.corruptions.random import Random, splitmix64

MASK = (1 << 64) - 1


def reference_splitmix64(state: int, count: int) -> list[int]:
    """The generator as published, in Python's unbounded integers."""
    words = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        words.append(z ^ (z >> 31))
    return words


def test_known_first_word():
    word = splitmix64(torch.tensor(0), torch.tensor(0)).item()
    assert word & MASK == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("state", [0, 1, 1234567, -1, -(1 << 63), (1 << 63) - 1])
def test_is_splitmix64(state):
    words = splitmix64(torch.tensor(state), torch.arange(50)).tolist()
    assert [word & MASK for word in words] == reference_splitmix64(state & MASK, 50)


def test_words_of_an_image_are_the_words_of_its_stream():
    random = Random(torch.tensor([5, 6]), domain=9)
    random.words(3)
    words = random.words(6)
    for row, seed in enumerate((5, 6)):
        key = reference_splitmix64(reference_splitmix64(seed, 10)[9], 2)[1]
        assert [w & MASK for w in words[row].tolist()] == reference_splitmix64(key, 6)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda: Random(torch.tensor([0])).uniform(100_000),
        lambda: Random(torch.arange(100_000)).uniform(),
        lambda: Random(torch.arange(100_000) << 32).uniform(),
        lambda: Random(torch.arange(1000)).uniform(100),
    ],
    ids=["along the index", "along the seeds", "along the seeds' high bits", "both"],
)
def test_uniform(arrange):
    sample = arrange().flatten().numpy()
    assert sample.min() >= 0
    assert sample.max() < 1
    assert stats.kstest(sample, "uniform").pvalue > 1e-3
    assert stats.chisquare(np.histogram(sample, 256, (0, 1))[0]).pvalue > 1e-3


def test_uniform_interval():
    random = Random(torch.arange(1000))
    sample = random.uniform(50, low=-3, high=5)
    assert stats.kstest(sample.flatten().numpy(), stats.uniform(-3, 8).cdf).pvalue > 1e-3


def test_normal_field():
    sample = Random(torch.arange(500)).normal_field(401, mean=2, std=3).flatten().numpy()
    assert stats.kstest(sample, stats.norm(2, 3).cdf).pvalue > 1e-3
    assert sample.mean() == pytest.approx(2, abs=0.03)
    assert sample.std() == pytest.approx(3, abs=0.02)
    assert stats.kurtosis(sample) == pytest.approx(0, abs=0.04)


def test_normal_field_by_its_definition():
    """Both numbers of a pair, from the word's two halves, in Python's arithmetic."""
    words = [w & MASK for w in Random(torch.tensor([3])).words(4)[0].tolist()]
    field = Random(torch.tensor([3])).normal_field(8, mean=1, std=2)[0]
    for i, word in enumerate(words):
        u = ((word >> 32 & 0x7FFFFFFF) + 1) * 2**-31
        low = word & 0xFFFFFFFF
        v = (low - (low >> 31 << 32)) * math.pi * 2**-31
        radius = math.sqrt(-2 * math.log(u))
        assert field[i].item() == pytest.approx(1 + 2 * radius * math.cos(v), abs=1e-5)
        assert field[4 + i].item() == pytest.approx(1 + 2 * radius * math.sin(v), abs=1e-5)


def test_fields_are_halves_of_words():
    words = [w & MASK for w in Random(torch.tensor([3])).words(3)[0].tolist()]
    halves = [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)]
    bits = Random(torch.tensor([3])).bits_field(5)[0]
    assert [b & 0xFFFFFFFF for b in bits.tolist()] == halves[:5]
    uniform = Random(torch.tensor([3])).uniform_field(5, low=-1, high=1)[0]
    assert uniform.tolist() == pytest.approx([2 * (h >> 8) / 2**24 - 1 for h in halves[:5]])
    integers = Random(torch.tensor([3])).integer_field(-3, 4, 5)[0]
    assert integers.tolist() == [(h >> 8) * 7 // 2**24 - 3 for h in halves[:5]]


def test_fields_of_more_dimensions():
    field = Random(torch.arange(4)).uniform_field(3, 5, 7)
    assert field.shape == (4, 3, 5, 7)
    assert field.dtype == torch.float32
    assert torch.equal(field.view(4, -1), Random(torch.arange(4)).uniform_field(105))
    sample = Random(torch.arange(1000)).uniform_field(99).flatten().numpy()
    assert sample.min() >= 0
    assert sample.max() < 1
    assert stats.kstest(sample, "uniform").pvalue > 1e-3


def test_integers():
    sample = Random(torch.arange(100)).integers(-2, 3, 1000)
    assert sample.dtype == torch.int64
    values, counts = torch.unique(sample, return_counts=True)
    assert values.tolist() == [-2, -1, 0, 1, 2]
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_streams_seeds_and_domains_are_independent():
    def first(seed, domain):
        return Random(torch.tensor([seed]), domain).uniform(20_000).flatten()

    same = Random(torch.tensor([0]))
    samples = [same.uniform(20_000).flatten(), same.uniform(20_000).flatten()]
    samples += [first(1, 0), first(2, 0), first(0, 1), first(1, 1), first(-1, 0)]
    correlation = torch.corrcoef(torch.stack(samples)) - torch.eye(len(samples))
    assert correlation.abs().max() < 5 / 20_000**0.5
    shifted = torch.corrcoef(torch.stack([samples[0][1:], samples[2][:-1]]))[0, 1]
    assert shifted.abs() < 5 / 20_000**0.5


def test_torch_global_generator_is_left_alone():
    state = torch.get_rng_state()
    Random(torch.arange(3)).normal_field(100)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_same_words_on_a_gpu():
    seeds = torch.arange(-500, 500)
    here, there = Random(seeds, 4), Random(seeds, 4, torch.device("cuda"))
    assert torch.equal(here.words(300), there.words(300).cpu())
    assert torch.equal(here.uniform(300), there.uniform(300))
    assert torch.equal(here.bits_field(301), there.bits_field(301).cpu())
    assert torch.equal(here.uniform_field(300), there.uniform_field(300).cpu())
    assert torch.equal(here.integer_field(-3, 9, 300), there.integer_field(-3, 9, 300).cpu())
    torch.testing.assert_close(here.normal_field(300), there.normal_field(300).cpu())
