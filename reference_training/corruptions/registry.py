"""Every corruption by name, in ImageNet-C's order: a new one is a function and a line here.

Two public definitions exist of some types, and both are here (`SEMANTICS`):

* "imagenet_c": the generators of ImageNet-C, Tiny-ImageNet-C and CIFAR-10-C, so what models are
  evaluated on; the default.
* "imagecorruptions": the public package of that name, which the paper trained on, with one set of
  severities for every size. Its
  elastic transform is another one, without the affine map; its motion blur is not rounded to 8
  bits, nor is snow's layer before its smear; that layer keeps the first pixels of an enlargement,
  not the central ones; its frost overlays are enlarged by a tenth; its pixels are enlarged by the
  nearest, the same where a whole factor enlarges them and at 224. (In its zoom blur, too, first
  stands for central, but factors below 1.5 leave at most one pixel to cut, and that is the last.)

Source: Hendrycks & Dietterich 2019, ImageNet-C; Michaelis et al. 2019, the package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from . import blur, digital, frost, noise, spatter, weather
from .parameters import CIFAR32, IMAGECORRUPTIONS224, IMAGENET224, TINY64, ParameterSet

Corruption = Callable[..., Tensor]

TRAINING: dict[str, Corruption] = {
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

HELD_OUT: dict[str, Corruption] = {
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "spatter": spatter.spatter,
    "saturate": digital.saturate,
}

SEEN = tuple(TRAINING)
UNSEEN = tuple(HELD_OUT)
CORRUPTIONS = SEEN + UNSEEN
GROUPS = {"all": CORRUPTIONS, "seen": SEEN, "unseen": UNSEEN}
SEVERITIES = (1, 2, 3, 4, 5)


class Semantics(NamedTuple):
    """One public definition: a function for each type, and the parameter sets made for it."""

    functions: Mapping[str, Corruption]
    parameter_sets: Mapping[str, ParameterSet]


SEMANTICS: dict[str, Semantics] = {
    "imagenet_c": Semantics(
        TRAINING | HELD_OUT,
        {
            "cifar32": ParameterSet(32, 48, CIFAR32),
            "tiny64": ParameterSet(64, 128, TINY64),
            "imagenet224": ParameterSet(224, math.inf, IMAGENET224),
        },
    ),
    "imagecorruptions": Semantics(
        {
            **TRAINING,
            **HELD_OUT,
            "motion_blur": blur.motion_blur_unrounded,
            "snow": weather.snow_uncut,
            "frost": frost.frost_enlarged,
            "elastic_transform": digital.elastic_displacement,
            "pixelate": digital.pixelate_nearest,
        },
        {"imagenet224": ParameterSet(224, math.inf, IMAGECORRUPTIONS224)},
    ),
}
