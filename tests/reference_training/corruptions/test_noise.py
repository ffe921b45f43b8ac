import numpy as np
import pytest
import torch
from scipy import stats

from reference_training.corruptions.noise import (
    gaussian_noise,
    impulse_noise,
    photon_counts,
    poisson_alias_table,
    shot_noise,
    speckle_noise,
)
from reference_training.corruptions.parameters import CIFAR32, IMAGENET224, TINY64


def column(name):
    """The five values of a table with one number for each severity."""
    return [value for (value,) in CIFAR32[name]]


@pytest.mark.parametrize("std", column("gaussian_noise"))
def test_gaussian_noise(grey, draws, std):
    noise = (gaussian_noise(grey, draws(), std) - grey).flatten().numpy()
    assert stats.kstest(noise, stats.norm(0, std).cdf).pvalue > 1e-3


@pytest.mark.parametrize("std", column("speckle_noise"))
@pytest.mark.parametrize("level", [0.0, 0.25, 1.0])
def test_speckle_noise(grey, draws, std, level):
    clean = torch.full_like(grey, level)
    noise = (speckle_noise(clean, draws(), std) - clean).flatten().numpy()
    if level == 0:
        assert not noise.any()
    else:
        assert stats.kstest(noise, stats.norm(0, std * level).cdf).pvalue > 1e-3


@pytest.mark.parametrize("fraction", column("impulse_noise"))
def test_impulse_noise(grey, draws, fraction):
    levels = torch.full_like(grey, 128, dtype=torch.uint8)
    result = impulse_noise(levels, draws(), fraction)
    counts = [(result == value).sum().item() for value in (0, 255, 128)]
    assert sum(counts) == grey.numel()
    expected = np.array([fraction / 2, fraction / 2, 1 - fraction]) * grey.numel()
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    channels_together = (result != 128).all(dim=1).double().mean()
    assert channels_together < 3 * fraction**2


PHOTONS = sorted(
    {photons for rows in (IMAGENET224, TINY64, CIFAR32) for (photons,) in rows["shot_noise"]}
)


@pytest.mark.parametrize("photons", PHOTONS)
def test_poisson_alias_table(photons):
    """What the table makes likely, summed up from its entries, is the Poisson distribution."""
    table, bits = poisson_alias_table(photons)
    entries = table.numpy().view(np.uint32).reshape(256, -1)
    assert entries.shape[1] == 1 << bits
    share, alias = entries >> bits, entries & ((1 << bits) - 1)
    levels = np.arange(256)[:, None]
    mass = share.astype(np.int64)
    np.add.at(mass, (levels, alias), (1 << (32 - bits)) - share.astype(np.int64))
    exact = stats.poisson.pmf(np.arange(1 << bits), photons * levels / 255)
    np.testing.assert_allclose(mass / 2**32, exact, atol=16 * 2.0**-32, rtol=0)
    assert (mass.sum(axis=1) == 1 << 32).all()


@pytest.mark.parametrize("photons", column("shot_noise"))
@pytest.mark.parametrize("level", [0, 1, 40, 128, 255])
def test_shot_noise(grey, draws, photons, level):
    levels = torch.full_like(grey, level, dtype=torch.uint8)
    counts = photon_counts(levels, draws(), photons).flatten().numpy()
    mean = photons * level / 255
    if level == 0:
        assert not counts.any()
        return
    edges = np.unique(stats.poisson.ppf(np.linspace(0, 1, 12)[1:-1], mean))
    shares = np.diff(np.concatenate([[0], stats.poisson.cdf(edges, mean), [1]]))
    bins = np.searchsorted(edges, counts, side="left")
    observed = np.bincount(bins, minlength=len(shares))
    assert stats.chisquare(observed, shares * counts.size).pvalue > 1e-3


def test_shot_noise_reads_its_table():
    """Given the bits of a draw, the count is the one that the alias method defines."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, (1, 3, 64, 64), dtype=np.uint32)
    level = rng.integers(0, 256, bits.shape)
    bits[0, 0, 0, :4], level[0, 0, 0, :4] = [0, 0, 2**32 - 1, 2**31], [0, 255, 255, 255]

    class Fixed:
        def bits_field(self, *shape):
            return torch.from_numpy(bits.view(np.int32)).clone().view(1, *shape)

    table, wide = poisson_alias_table(60)
    entries = table.numpy().view(np.uint32).reshape(256, -1)
    column, low = bits >> (32 - wide), bits & ((1 << (32 - wide)) - 1)
    entry = entries[level, column]
    expected = np.where(low < entry >> wide, column, entry & ((1 << wide) - 1))
    levels = torch.from_numpy(level.astype(np.uint8))
    np.testing.assert_array_equal(photon_counts(levels, Fixed(), 60).numpy(), expected)
    seen = np.floor(255 * expected / 60 + 2e-4).clip(0, 255)
    np.testing.assert_array_equal(shot_noise(levels, Fixed(), 60).numpy(), seen)
