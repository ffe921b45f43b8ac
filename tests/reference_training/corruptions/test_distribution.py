"""The random types draw from the public package's distributions, and grow with severity as there.

Both sides make 200 images of one photograph, each with its own randomness, and 512 under the five
types whose images differ as a whole. Of every image are taken the mean, the variance, the shares of
eight histogram bins and the power in eight rings of its spectrum; the two sides' means of each must
agree within their sampling error, and for the five types so must their spreads.

Power at 512 images a side, in the standard deviation s of a statistic from image to image: the mean
has a standard error of s sqrt(2/512) = 0.0625 s, and a bound of 4.7 of these finds a shift of 0.4 s
in 95 of 100 cases; ln s has one of 0.044 where the statistic is Gaussian, and a bound of 4 finds a
spread that is 1.3 times as large. `test_power` shifts and spreads the package's own draws so.
"""

import zlib
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
import torch
from skimage import data
from skimage.transform import resize

from reference_training.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from tests.reference_training.corruptions.public_package import imagecorruptions

IMAGES = 200
SIDE = 64
# With about 200 statistics in all, chance exceeds this once in a thousand runs; seeds are fixed.
STANDARD_ERRORS = 4.7
SPREAD_ERRORS = 4
WHOLE = ("fog", "snow", "spatter", "motion_blur", "frost")
RANDOM = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "glass_blur",
    "motion_blur",
    "snow",
    "frost",
    "fog",
    "elastic_transform",
    "speckle_noise",
    "spatter",
)
OPTIONS = {"parameters": "imagenet224", "semantics": "imagecorruptions", "frost": "photographs"}


@pytest.fixture(scope="module")
def photograph():
    """uint8 (SIDE, SIDE, 3)."""
    scaled = resize(data.chelsea()[:, 60:360], (SIDE, SIDE), anti_aliasing=True)
    return (255 * scaled).round().astype(np.uint8)


def ours(photograph, corruption, severity, count):
    batch = torch.from_numpy(photograph).permute(2, 0, 1).expand(count, -1, -1, -1)
    seeds = torch.arange(count)
    result = corrupt(batch.contiguous(), corruption, severity, seeds=seeds, **OPTIONS)
    return result.permute(0, 2, 3, 1).numpy()


def theirs(photograph, corruption, severity, count):
    """The public package; this version of it takes a sixth overlay, ImageNet-C and we take five."""
    function = getattr(imagecorruptions, corruption)
    seeded = {"seed"} if corruption in ("impulse_noise", "glass_blur") else set()
    image = imagecorruptions.Image.fromarray(photograph)
    draw = np.random.RandomState(zlib.crc32(f"{corruption}/{severity}".encode()))

    def randint(low, high=None):
        return draw.randint(5 if high is None else low, high)

    generator = {"normal": draw.normal, "uniform": draw.uniform, "poisson": draw.poisson}
    if corruption == "frost":  # only there, for numba must find the one of NumPy
        generator["randint"] = randint
    with mock.patch.multiple(np.random, **generator):
        made = [function(image, severity, **dict.fromkeys(seeded, i)) for i in range(count)]
    return np.stack([np.uint8(one) for one in made])


def statistics(images):
    """(N, 18): of each image."""
    x = images.astype(np.float64)
    bins = np.linspace(0, 256, 9)
    histogram = np.stack(
        [((low <= x) & (x < high)).mean((1, 2, 3)) for low, high in pairwise(bins)]
    )
    power = np.abs(np.fft.rfft2(x.mean(axis=3), norm="ortho")) ** 2
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    rings = np.linspace(0, 0.5, 9)
    spectrum = np.stack(
        [
            np.log1p(power[:, (low < frequency) & (frequency <= high)].mean(axis=1))
            for low, high in pairwise(rings)
        ]
    )
    return np.stack([x.mean((1, 2, 3)), x.var((1, 2, 3)), *histogram, *spectrum], axis=1)


# What hardly varies, such as the mean under glass blur, differs by the rounding of both sides.
SCALE = np.array([0.01, 1, *[1e-4] * 8, *[1e-3] * 8])


def means_agree(one, other):
    """Whether the means of each statistic agree within their sampling error."""
    error = np.sqrt((one.var(axis=0) + other.var(axis=0)) / len(one))
    difference = np.abs(one.mean(axis=0) - other.mean(axis=0))
    return difference < STANDARD_ERRORS * error + SCALE


def spreads_agree(one, other):
    """Likewise ln s: its variance is (kurtosis - 1) / 4 n, and 1 / 2 n for a Gaussian."""
    agree, variances = [], []
    for side in (one, other):
        deviation = side - side.mean(axis=0)
        square = (deviation**2).mean(axis=0) + 1e-30
        kurtosis = (deviation**4).mean(axis=0) / square**2
        variances.append((kurtosis.clip(3) - 1) / (4 * len(side)))
        agree.append(np.sqrt(square))
    difference = np.abs(np.log(agree[0] / agree[1]))
    return (difference < SPREAD_ERRORS * np.sqrt(sum(variances))) | (np.max(agree, 0) < SCALE)


@pytest.mark.parametrize("corruption", RANDOM)
def test_distribution(photograph, corruption):
    count = 512 if corruption in WHOLE else IMAGES
    one, other = (statistics(make(photograph, corruption, 3, count)) for make in (ours, theirs))
    assert means_agree(one, other).all()
    if corruption in WHOLE:
        assert spreads_agree(one, other).all()


@pytest.mark.parametrize("corruption", ["fog", "snow"])
def test_power(photograph, corruption):
    """The package's draws against themselves, shifted by 0.4 s or spread by 1.3, are told apart."""
    draws = statistics(theirs(photograph, corruption, 3, 512))
    mean, spread = draws.mean(axis=0), draws.std(axis=0)
    varied = spread > 10 * SCALE
    assert varied.sum() >= 8
    assert not means_agree(draws, draws + 0.4 * spread)[varied].any()
    assert means_agree(draws, draws + 0.2 * spread).all()
    wider = mean + 1.3 * (draws - mean)
    gaussian = varied & (((draws - mean) ** 4).mean(axis=0) < 4 * spread**4)
    assert gaussian.sum() >= 4
    assert not spreads_agree(draws, wider)[gaussian].any()
    assert spreads_agree(draws, draws).all()


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_grows_with_severity_as_the_package(photograph, corruption):
    """Wherever the package's mean distance from the clean image clearly rises, ours rises too."""
    count = 8 if corruption in RANDOM else 1
    distances = []
    for make in (ours, theirs):
        made = [make(photograph, corruption, severity, count) for severity in SEVERITIES]
        distances.append([np.abs(each.astype(float) - photograph).mean((1, 2, 3)) for each in made])
    mine, public = (np.array([each.mean() for each in side]) for side in distances)
    noise = np.array([each.std() for each in distances[1]]) / count**0.5
    clear = np.diff(public) > 4 * np.hypot(noise[1:], noise[:-1])
    assert (np.diff(mine)[clear] > 0).all(), (mine, public)
    assert clear.any() or corruption in ("saturate", "frost", "fog", "snow", "spatter")
