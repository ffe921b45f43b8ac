"""Images with everything that goes wrong: smooth, noisy, flat, grey, black and white regions."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from reference_training.corruptions.random import Random


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """uint8 (6, 3, 32, 32)."""
    rng = np.random.default_rng(7)
    smooth = ndimage.gaussian_filter(rng.normal(size=(6, 3, 32, 32)), (0, 0, 3, 3), mode="wrap")
    low, high = smooth.min(axis=(1, 2, 3), keepdims=True), smooth.max(axis=(1, 2, 3), keepdims=True)
    pixels = 255 * (smooth - low) / (high - low)
    pixels[1] += rng.normal(scale=20, size=(3, 32, 32))
    pixels[2, :, :8] = 0
    pixels[2, :, 8:16] = 255
    pixels[3, :] = pixels[3, :1]
    pixels[4, :, 10:20, 10:20] = np.array([200, 30, 30])[:, None, None]
    pixels[4, :, 20:30, 10:20] = 128
    pixels[5] = rng.integers(0, 256, size=(3, 32, 32))
    return torch.from_numpy(pixels.clip(0, 255).round().astype(np.uint8))


@pytest.fixture(scope="session")
def unit(images: torch.Tensor) -> torch.Tensor:
    """The same images as the corruptions see them, float64 in [0, 1]."""
    return images.to(torch.float64) / 255


@pytest.fixture(scope="session")
def grey(unit: torch.Tensor) -> torch.Tensor:
    """float64 (6, 3, 64, 64), every value 1/2: any deviation is noise."""
    return torch.full((len(unit), 3, 64, 64), 0.5, dtype=torch.float64)


@pytest.fixture
def draws():
    """Call it for six streams of draws, the same at each call."""
    return lambda: Random(torch.arange(100, 106), domain=3)
