"""The random types draw from the public package's distributions, and grow with severity as there.

Both sides make 200 images of one photograph, each with its own randomness. Of every image are taken
the mean, the variance, the shares of eight histogram bins and the power in eight rings of its
spectrum; the two sides' means of each must agree within their sampling error.
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


@pytest.mark.parametrize("corruption", RANDOM)
def test_distribution(photograph, corruption):
    one, other = (statistics(make(photograph, corruption, 3, IMAGES)) for make in (ours, theirs))
    error = np.sqrt((one.var(axis=0) + other.var(axis=0)) / IMAGES)
    # What hardly varies, such as the mean under glass blur, differs by the rounding of both sides.
    scale = np.array([0.01, 1, *[1e-4] * 8, *[1e-3] * 8])
    difference = np.abs(one.mean(axis=0) - other.mean(axis=0))
    assert (difference < STANDARD_ERRORS * error + scale).all(), difference / error


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
