import numpy as np
import pytest
import torch
from scipy import stats

from reference_training.corruptions.noise import (
    gaussian_noise,
    impulse_noise,
    poisson_table,
    shot_noise,
    speckle_noise,
)
from reference_training.corruptions.parameters import CIFAR32


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
    result = impulse_noise(grey, draws(), fraction)
    counts = [(result == value).sum().item() for value in (0.0, 1.0, 0.5)]
    assert sum(counts) == grey.numel()
    expected = np.array([fraction / 2, fraction / 2, 1 - fraction]) * grey.numel()
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    channels_together = (result != 0.5).all(dim=1).double().mean()
    assert channels_together < 3 * fraction**2


@pytest.mark.parametrize("photons", column("shot_noise"))
def test_poisson_table(photons):
    table = poisson_table(photons, torch.device("cpu")).numpy()
    levels = np.arange(256)[:, None]
    exact = stats.poisson.cdf(np.arange(table.shape[1]), photons * levels / 255)
    np.testing.assert_allclose(table - levels, exact, atol=1e-12, rtol=0)
    assert (np.diff(table.ravel()) >= 0).all()


@pytest.mark.parametrize("photons", column("shot_noise"))
@pytest.mark.parametrize("level", [0, 1, 40, 128, 255])
def test_shot_noise(grey, draws, photons, level):
    counts = shot_noise(torch.full_like(grey, level / 255), draws(), photons).flatten() * photons
    assert torch.equal(counts.round(), counts.round().clamp(min=0))
    torch.testing.assert_close(counts, counts.round())
    counts = counts.round().numpy().astype(int)
    mean = photons * level / 255
    if level == 0:
        assert not counts.any()
        return
    edges = np.unique(stats.poisson.ppf(np.linspace(0, 1, 12)[1:-1], mean))
    shares = np.diff(np.concatenate([[0], stats.poisson.cdf(edges, mean), [1]]))
    bins = np.searchsorted(edges, counts, side="left")
    observed = np.bincount(bins, minlength=len(shares))
    assert stats.chisquare(observed, shares * counts.size).pvalue > 1e-3


def test_shot_noise_inverts_the_distribution_function():
    class Fixed:
        def __init__(self, draw):
            self.draw = draw

        def uniform(self, *shape):
            return self.draw.clone()

    rng = np.random.default_rng(0)
    draw = rng.random((1, 3, 64, 64))
    draw[0, 0, 0, :4] = [0, 2**-53, 1 - 2**-53, 0.5]
    level = rng.integers(0, 256, draw.shape)
    level[0, 0, 0, :4] = [7, 0, 255, 255]
    counts = shot_noise(torch.from_numpy(level / 255), Fixed(torch.from_numpy(draw)), 60) * 60
    # One bin of the table's resolution near 1, where the tail is thinner than float64.
    exact = stats.poisson.ppf(draw.clip(1e-300, 1 - 1e-13), 60 * level / 255).clip(0)
    inside = draw < 1 - 1e-12
    np.testing.assert_array_equal(counts.round().numpy()[inside], exact[inside])
    assert ((counts >= 0) & (counts < 60 + 12 * 60**0.5 + 20)).all()
