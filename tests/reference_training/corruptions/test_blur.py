import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.filters import gaussian

from reference_training.corruptions.blur import (
    defocus_blur,
    gaussian_blur,
    glass_blur,
    motion_blur,
    scan_sources,
    smear,
    zoom,
    zoom_blur,
)
from reference_training.corruptions.filters import fold_index, gaussian_filter, pad
from reference_training.corruptions.parameters import CIFAR32, IMAGENET224
from reference_training.corruptions.resampling import pack_levels, unpack_levels

CLOSE = {"atol": 1e-12, "rtol": 0}


def column(name):
    """The five values of a table with one number for each severity."""
    return [value for (value,) in CIFAR32[name]]


@pytest.mark.parametrize(
    ("border", "pad"), [("nearest", "edge"), ("reflect", "symmetric"), ("mirror", "reflect")]
)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_borders_are_numpys(border, pad, size):
    expected = np.pad(np.arange(size), 17, mode=pad)
    index = fold_index(torch.arange(-17, size + 17), size, border)
    assert index.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("border", "mode"), [("nearest", "edge"), ("reflect", "symmetric"), ("mirror", "reflect")]
)
def test_pad_is_numpys(unit, border, mode):
    expected = np.pad(unit, ((0, 0), (0, 0), (3, 3), (7, 7)), mode=mode)
    np.testing.assert_array_equal(pad(unit, 3, 7, border), expected)


@pytest.mark.parametrize("border", ["nearest", "reflect", "mirror"])
@pytest.mark.parametrize("sigma", [0.4, 2, 3.1, 3.2, 9])
def test_gaussian_filter_is_scipys(unit, border, sigma):
    """On both sides of the number of taps from which a matrix is faster."""
    expected = ndimage.gaussian_filter(unit.numpy(), (0, 0, sigma, sigma), mode=border)
    np.testing.assert_allclose(gaussian_filter(unit, sigma, border=border), expected, **CLOSE)


def test_packed_levels_come_back(images):
    packed = pack_levels(images.int())
    assert packed.shape == (6, 32, 32)
    assert torch.equal(unpack_levels(packed), images)


@pytest.mark.parametrize("sigma", [*column("gaussian_blur"), 0.05, 0.25, 6])
def test_gaussian_blur_is_scikit_images(unit, draws, sigma):
    expected = np.stack([gaussian(image, sigma, channel_axis=0) for image in unit.numpy()])
    np.testing.assert_allclose(gaussian_blur(unit, draws(), sigma), expected, **CLOSE)


@pytest.mark.parametrize(
    ("radius", "alias_blur"), [*CIFAR32["defocus_blur"], *IMAGENET224["defocus_blur"]]
)
def test_defocus_blur(unit, draws, radius, alias_blur):
    reach, taps = (8, 1) if radius <= 8 else (radius, 2)
    x, y = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    disk = (x**2 + y**2 <= radius**2).astype(float)
    rim = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * alias_blur**2))
    rim = np.outer(rim, rim) / rim.sum() ** 2
    kernel = ndimage.correlate(disk / disk.sum(), rim, mode="mirror")
    expected = ndimage.correlate(unit.numpy(), kernel[None, None], mode="mirror")
    np.testing.assert_allclose(defocus_blur(unit, draws(), radius, alias_blur), expected, **CLOSE)


def scan(image, offsets, d):
    """Glass blur's loop over one (C, H, W) image, one pixel after another."""
    image = image.copy()
    height, width = image.shape[1:]
    for h in range(height - d, d, -1):
        for w in range(width - d, d, -1):
            dy, dx = offsets[:, h, w]
            image[:, h, w] = image[:, h + dy, w + dx]
    return image


@settings(max_examples=60)
@given(
    d=st.integers(1, 4),
    height=st.integers(8, 20),
    width=st.integers(8, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_scan_sources_is_the_scalar_scan(d, height, width, seed):
    offsets = np.random.default_rng(seed).integers(-d, d, (3, 2, height, width))
    image = np.arange(height * width).reshape(1, height, width)
    expected = np.stack([scan(image, one, d)[0] + n * image.size for n, one in enumerate(offsets)])
    sources = scan_sources(torch.from_numpy(offsets).int(), d)
    np.testing.assert_array_equal(sources, expected)


def test_scan_sources_follows_the_longest_chain():
    offsets = torch.zeros(1, 2, 24, 24, dtype=torch.int32)
    offsets[:, 1] = 1
    expected = scan(np.arange(576).reshape(1, 24, 24), offsets[0].numpy(), 2)
    np.testing.assert_array_equal(scan_sources(offsets, 2), expected)
    assert expected[0, 10, 3] == 10 * 24 + 23


@pytest.mark.parametrize(
    ("sigma", "max_delta", "iterations"), CIFAR32["glass_blur"] + ((0.7, 2, 3), (1, 4, 2))
)
def test_glass_blur(unit, draws, sigma, max_delta, iterations):
    random = draws()
    offsets = [random.integer_field(-max_delta, max_delta, 2, 32, 32) for _ in range(iterations)]
    expected = []
    for number, image in enumerate(unit.numpy()):
        image = np.floor(gaussian(image, sigma, channel_axis=0) * 255 + 2e-4) / 255
        for once in offsets:
            image = scan(image, once[number].numpy(), max_delta)
        expected.append(gaussian(image, sigma, channel_axis=0))
    result = glass_blur(unit, draws(), sigma, max_delta, iterations)
    np.testing.assert_allclose(result, np.stack(expected), **CLOSE)


def smear_one(image, angle, radius, sigma):
    """The line blur of one (C, H, W) image, pixel by pixel."""
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    _, height, width = image.shape
    total = np.zeros_like(image)
    for i, weight in enumerate(weights):
        dx = -math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        dy = -math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        for y in range(height):
            for x in range(width):
                row, column = min(max(y - dy, 0), height - 1), min(max(x - dx, 0), width - 1)
                total[:, y, x] += weight / sum(weights) * image[:, row, column]
    return total


@pytest.mark.parametrize(("radius", "sigma"), CIFAR32["motion_blur"][::2])
def test_motion_blur(unit, draws, radius, sigma):
    angles = draws().uniform(low=-45, high=45)
    assert ((angles >= -45) & (angles <= 45)).all()
    result = motion_blur(unit, draws(), radius, sigma)
    for i in range(2):
        expected = smear_one(unit[i].numpy(), angles[i].item(), radius, sigma)
        rounded = np.floor(expected * 255 + 0.5 + 1e-6) / 255
        np.testing.assert_allclose(result[i], rounded, **CLOSE)


@pytest.mark.parametrize("angle", [0.0, 45.0, -90.0, -135.0, 20.0])
def test_smear_directions(unit, angle):
    result = smear(unit[4:5, :1], torch.tensor([angle], dtype=torch.float64), 10, 4)
    expected = smear_one(unit[4, :1].numpy(), angle, 10, 4)
    np.testing.assert_allclose(result[0], expected, atol=1e-6)
    flat = torch.full((1, 1, 9, 9), 77 / 255, dtype=torch.float64)
    torch.testing.assert_close(
        smear(flat, torch.tensor([angle]).double(), 10, 4), flat, atol=1e-6, rtol=0
    )


def zoom_one(image, factor):
    """The clipped zoom of one (C, H, W) image by SciPy."""
    size = image.shape[-1]
    side = math.ceil(size / factor)
    top = (size - side) // 2
    cropped = image[:, top : top + side, top : top + side]
    large = ndimage.zoom(cropped, (1, factor, factor), order=1)
    trim = (large.shape[1] - size) // 2
    return large[:, trim : trim + size, trim : trim + size]


@pytest.mark.parametrize("factor", [1, 1.03, 1.11, 1.25, 1.75, 2.25, 4, 4.5])
def test_zoom_is_scipys(unit, factor):
    result = zoom(unit, factor)
    for image, zoomed in zip(unit.numpy(), result, strict=True):
        np.testing.assert_allclose(zoomed, zoom_one(image, factor), atol=1e-6)


@pytest.mark.parametrize(("stop", "step"), CIFAR32["zoom_blur"])
def test_zoom_blur(unit, draws, stop, step):
    factors = np.arange(1, stop, step)
    result = zoom_blur(unit, draws(), stop, step)
    for image, blurred in zip(unit.numpy()[:3], result, strict=False):
        layers = [image, *(zoom_one(image, factor) for factor in factors)]
        np.testing.assert_allclose(blurred, np.mean(layers, axis=0), atol=1e-6)


def test_zoom_blur_has_the_published_number_of_factors():
    assert [len(np.arange(1, *row)) for row in CIFAR32["zoom_blur"]] == [7, 12, 16, 21, 26]
