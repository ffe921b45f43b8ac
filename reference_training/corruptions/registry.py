"""Every corruption by name, in ImageNet-C's order: a new one is a function and a line here.

Source: Hendrycks & Dietterich 2019, ImageNet-C.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from . import blur, digital, frost, noise, spatter, weather

TRAINING: dict[str, Callable[..., Tensor]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": frost.frost,
    "fog": weather.fog,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}

HELD_OUT: dict[str, Callable[..., Tensor]] = {
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "spatter": spatter.spatter,
    "saturate": digital.saturate,
}

REGISTRY = TRAINING | HELD_OUT

SEEN = tuple(TRAINING)
UNSEEN = tuple(HELD_OUT)
CORRUPTIONS = SEEN + UNSEEN
SEVERITIES = (1, 2, 3, 4, 5)
