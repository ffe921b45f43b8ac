import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage.color import hsv2rgb, rgb2hsv
from skimage.filters import gaussian

from reference_training.corruptions.digital import (
    _covering,
    _nearest,
    box_pixels,
    brightness,
    contrast,
    elastic_displacement,
    elastic_transform,
    inverse_affine,
    jpeg_compression,
    pixelate,
    pixelate_nearest,
    saturate,
)
from reference_training.corruptions.parameters import CIFAR32

# What decides for a whole level where truncation would leave it to the last bits, see `filters`.
SLACK = 2e-4


def column(name):
    """The five values of a table with one number for each severity."""
    return [value for (value,) in CIFAR32[name]]


def with_hsv(images, change):
    """Apply `change` to (N, H, W, 3) HSV in place and come back, by scikit-image."""
    hsv = rgb2hsv(images.permute(0, 2, 3, 1).numpy())
    change(hsv)
    return hsv2rgb(hsv).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("shift", [*column("brightness"), -0.3])
def test_brightness_is_scikit_images(images, unit, draws, shift):
    def change(hsv):
        hsv[..., 2] = np.clip(hsv[..., 2] + shift, 0, 1)

    expected = np.floor(255 * with_hsv(unit, change) + SLACK).clip(0, 255)
    np.testing.assert_array_equal(brightness(images, draws(), shift), expected)


def test_the_darkest_colours(draws):
    """Every colour of the levels 0, 1 and 2, where values are divided by."""
    colours = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(1, 3, 9, 3)
    levels = torch.from_numpy(colours.astype(np.uint8)).permute(0, 3, 1, 2)
    dark = levels.to(torch.float64) / 255

    def brighter(hsv):
        hsv[..., 2] = np.clip(hsv[..., 2] + 0.1, 0, 1)

    def fuller(hsv):
        hsv[..., 1] = np.clip(hsv[..., 1] * 2 + 0.1, 0, 1)

    for made, change in (
        (brightness(levels, draws(), 0.1), brighter),
        (saturate(levels, draws(), 2, 0.1), fuller),
    ):
        np.testing.assert_array_equal(made, np.floor(255 * with_hsv(dark, change) + SLACK))


@pytest.mark.parametrize(("gain", "shift"), CIFAR32["saturate"] + ((20, 0.2),))
def test_saturate_is_scikit_images(images, unit, draws, gain, shift):
    def change(hsv):
        hsv[..., 1] = np.clip(hsv[..., 1] * gain + shift, 0, 1)

    expected = np.floor(255 * with_hsv(unit, change) + SLACK)
    np.testing.assert_array_equal(saturate(images, draws(), gain, shift), expected)


@pytest.mark.parametrize("gain", column("contrast"))
def test_contrast(images, draws, gain):
    x = images.double().numpy()
    mean = x.mean(axis=(2, 3), keepdims=True)
    expected = np.floor((x - mean) * gain + mean + SLACK)
    np.testing.assert_array_equal(contrast(images, draws(), gain), expected)


def affine_matrix(before, after):
    """The 2x3 matrix that maps three points onto three others, by its six equations."""
    equations, targets = [], []
    for (x, y), (u, v) in zip(before, after, strict=True):
        equations += [[x, y, 1, 0, 0, 0], [0, 0, 0, x, y, 1]]
        targets += [u, v]
    return np.linalg.solve(equations, targets).reshape(2, 3)


@pytest.mark.parametrize(("alpha", "sigma", "affine"), CIFAR32["elastic_transform"])
def test_elastic_transform(unit, draws, alpha, sigma, affine):
    random = draws()
    moves = random.uniform(3, 2, low=-affine, high=affine).numpy()
    noise = random.uniform_field(2, 32, 32, low=-1, high=1).double().numpy()
    result = elastic_transform(unit, draws(), alpha, sigma, affine)
    corners = np.float32([[26, 26], [26, 6], [6, 6]])
    grid = np.stack([*np.meshgrid(np.arange(32), np.arange(32)), np.ones((32, 32))])
    for i, image in enumerate(unit.numpy()):
        moved = corners + np.float32(moves[i])  # as OpenCV is given them
        forward = affine_matrix(corners, np.float32(moved))
        backward = np.linalg.inv(np.vstack([forward, [0, 0, 1]]))
        # OpenCV 4 sums in units of 2^-10 pixels, and rounds to 1/32.
        fixed = (
            np.rint(1024 * a * grid[0]) + np.rint(1024 * (b * grid[1] + c))
            for a, b, c in backward[:2]
        )
        x, y = (np.floor((place + 16) / 32) / 32 for place in fixed)
        dx, dy = (
            alpha * ndimage.gaussian_filter(noise[i, k], sigma, mode="reflect", truncate=3)
            for k in (0, 1)
        )
        for channel, actual in zip(image, result[i], strict=True):
            warped = ndimage.map_coordinates(channel, [y, x], order=1, mode="mirror")
            expected = ndimage.map_coordinates(
                warped, [grid[1] + dy, grid[0] + dx], order=1, mode="reflect"
            )
            np.testing.assert_allclose(actual, expected, atol=1e-9)


@pytest.mark.parametrize("alpha", [12.5, 30.0])
def test_elastic_displacement(unit, draws, alpha):
    noise = draws().uniform_field(2, 32, 32, low=-0.16, high=0.16).double().numpy()
    result = elastic_displacement(unit, draws(), alpha)
    y, x = np.mgrid[:32, :32]
    for i, image in enumerate(unit.numpy()):
        dx, dy = (alpha * gaussian(each, 0.32, mode="reflect", truncate=3) for each in noise[i])
        for channel, actual in zip(image, result[i], strict=True):
            expected = ndimage.map_coordinates(channel, [y + dy, x + dx], order=1, mode="reflect")
            np.testing.assert_allclose(actual, expected, atol=1e-9)


def test_inverse_affine_of_no_move_is_the_identity():
    identity = inverse_affine(40, 30, torch.zeros(1, 3, 2, dtype=torch.float64))[0]
    expected = torch.tensor([[1, 0], [0, 1], [0, 0]], dtype=torch.float64)
    torch.testing.assert_close(identity, expected, atol=1e-12, rtol=0)


def by_pillow(image, scale, enlargement):
    side = len(image)
    small = Image.fromarray(image).resize((int(side * scale),) * 2, Image.Resampling.BOX)
    return np.asarray(small.resize((side, side), enlargement))


@pytest.mark.parametrize("size", [32, 57, 224])
@pytest.mark.parametrize("scale", [*column("pixelate"), 0.5, 0.3, 0.25])
def test_pixelate_is_pillows(draws, size, scale):
    levels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    images = torch.from_numpy(levels).permute(0, 3, 1, 2)
    result = pixelate(images, draws(), scale).permute(0, 2, 3, 1)
    elsewhere = box_pixels(images, [scale, 0.7], _covering).permute(0, 2, 3, 1)
    for image, actual, boxed, by in zip(levels, result, elsewhere, (scale, 0.7), strict=True):
        np.testing.assert_array_equal(actual.numpy(), by_pillow(image, scale, Image.Resampling.BOX))
        np.testing.assert_array_equal(boxed.numpy(), by_pillow(image, by, Image.Resampling.BOX))


@pytest.mark.parametrize("scale", [0.9, 0.6, 0.25])
def test_pixelate_nearest_is_pillows(draws, scale):
    levels = np.random.default_rng(0).integers(0, 256, (2, 57, 57, 3), dtype=np.uint8)
    images = torch.from_numpy(levels).permute(0, 3, 1, 2)
    for made in (
        pixelate_nearest(images, draws(), scale),
        box_pixels(images, [scale] * 2, _nearest),
    ):
        for image, actual in zip(levels, made.permute(0, 2, 3, 1), strict=True):
            expected = by_pillow(image, scale, Image.Resampling.NEAREST)
            np.testing.assert_array_equal(actual.numpy(), expected)


@pytest.mark.parametrize("quality", [*column("jpeg_compression"), 7, 100])
def test_jpeg_compression_is_pillows(images, draws, quality):
    result = jpeg_compression(images, draws(), quality)
    for image, actual in zip(images, result, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
        expected = np.asarray(Image.open(buffer)).transpose(2, 0, 1)
        np.testing.assert_array_equal(actual.numpy(), expected)
