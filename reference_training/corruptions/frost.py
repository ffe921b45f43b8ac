"""Frost: an overlay of ice, from photographs or from the procedural stand-in.

ImageNet-C's photographs come without a licence of their own, so they are not part of this project.
They are read from the package `imagecorruptions-imaug` where that is installed (`pip install
imagecorruptions-imaug`; it is located, never imported). The stand-in has their mean colours and
contrasts but not their structure: results made with it are not ImageNet-C's frost.

Source: Hendrycks & Dietterich 2019, ImageNet-C.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .random import Random
from .weather import diamond_square

FROST_CHOICES = ("auto", "photographs", "procedural")

# ImageNet-C draws from the first five of its six files.
_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
# Mean red, green, blue and contrast (standard deviation) of those files, in grey levels.
_LOOKS = (
    (78, 149, 166, 20),
    (201, 205, 214, 22),
    (201, 205, 214, 22),
    (138, 153, 165, 29),
    (112, 123, 135, 43),
)


class Overlays(NamedTuple):
    """Overlays of different sizes in one buffer, so that a batch reads them in one gather."""

    values: Tensor  # float64 (3, all pixels), in [0, 1]
    first: Tensor  # int64 (K,), each overlay's first pixel
    sizes: Tensor  # int64 (K, 2), heights and widths
    smallest: tuple[int, int]


def frost(
    images: Tensor,
    random: Random,
    image_weight: float,
    frost_weight: float,
    resize: float,
    source: str,
) -> Tensor:
    """Mix with a random crop of one of five overlays: a x + b overlay.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        image_weight, frost_weight: a and b.
        resize: the overlays' scale before the crop.
        source: "photographs", "procedural" or "auto", see `frost_source`.

    Returns:
        (N, 3, H, W).

    Raises:
        ValueError: the images are larger than the resized overlays, or `source` is unknown.
        FileNotFoundError: photographs asked for and not installed.
    """
    overlays = load_overlays(choose_source(source), resize, images.device)
    height, width = images.shape[-2:]
    if height >= overlays.smallest[0] or width >= overlays.smallest[1]:
        raise ValueError(
            f"frost: images are {height}x{width}, but the smallest overlay, resized by {resize}, "
            f"is {overlays.smallest[0]}x{overlays.smallest[1]} and must be larger; use a "
            "parameter set made for this image size"
        )
    chosen = random.integers(0, len(overlays.first))
    sizes = overlays.sizes[chosen]
    corner = random.uniform(2).mul_(sizes - sizes.new_tensor([height, width])).to(torch.int64)
    rows = corner[:, :1] + torch.arange(height, device=images.device)
    columns = corner[:, 1:] + torch.arange(width, device=images.device)
    rows = rows * sizes[:, 1:] + overlays.first[chosen][:, None]
    crops = overlays.values[:, rows[:, :, None] + columns[:, None, :]]
    return image_weight * images + frost_weight * crops.movedim(0, 1)


def frost_source(frost: str = "auto") -> str:
    """Say which overlays a choice of `frost` uses here.

    Args:
        frost: "photographs" (ImageNet-C's own, must be installed), "procedural" (generated, the
            same everywhere) or "auto": the photographs where they are installed, else the
            stand-in, with a warning.

    Returns:
        One line, to be written beside results.

    Raises:
        ValueError: `frost` is none of the three.
        FileNotFoundError: photographs asked for and not installed.
    """
    if choose_source(frost, warn=False) == "photographs":
        return "photographs: ImageNet-C's five overlays, from the package imagecorruptions-imaug"
    return "procedural: generated stand-in, not ImageNet-C's frost"


def choose_source(frost: str, *, warn: bool = True) -> str:
    """Resolve "auto", and refuse photographs which are not there.

    Args:
        frost: see `frost_source`.
        warn: whether to warn where "auto" falls back to the stand-in.

    Returns:
        "photographs" or "procedural".

    Raises:
        ValueError, FileNotFoundError: as `frost_source`.
    """
    if frost not in FROST_CHOICES:
        raise ValueError(f"frost: {frost!r} is unknown; choose one of {', '.join(FROST_CHOICES)}")
    if frost == "procedural":
        return "procedural"
    if photograph_folder() is not None:
        return "photographs"
    remedy = "`pip install imagecorruptions-imaug` for the photographs"
    if frost == "photographs":
        raise FileNotFoundError(
            f"frost: ImageNet-C's overlays are not installed; {remedy}, or choose "
            'frost="procedural" for the generated stand-in'
        )
    if warn:
        warnings.warn(
            f"frost: using the procedural stand-in, which is not ImageNet-C's frost; {remedy}, or "
            'pass frost="procedural" to choose the stand-in',
            stacklevel=2,
        )
    return "procedural"


@lru_cache(maxsize=1)
def photograph_folder() -> Path | None:
    """The folder of ImageNet-C's overlays, or None where they are not installed."""
    package = importlib.util.find_spec("imagecorruptions")
    for place in (package.submodule_search_locations or ()) if package else ():
        if all((Path(place) / "frost" / name).is_file() for name in _FILES):
            return Path(place) / "frost"
    return None


@lru_cache(maxsize=8)
def load_overlays(source: str, resize: float, device: torch.device) -> Overlays:
    """Read or generate the five overlays, and resize them as OpenCV does: bilinear, 8 bits.

    Args:
        source: "photographs" or "procedural".
        resize: the scale.
        device: where they are kept.

    Returns:
        The overlays.
    """
    folder = photograph_folder()
    if source == "photographs" and folder is not None:
        files = [np.array(Image.open(folder / name).convert("RGB")) for name in _FILES]
        pictures = [torch.from_numpy(file).movedim(-1, 0) for file in files]
    else:
        pictures = list(procedural_overlays())
    if resize != 1:
        pictures = [
            F.interpolate(picture[None].double(), scale_factor=resize, mode="bilinear")[0].round()
            for picture in pictures
        ]
    sizes = torch.tensor([picture.shape[1:] for picture in pictures])
    first = sizes.prod(dim=1).cumsum(0) - sizes.prod(dim=1)
    values = torch.cat([picture.flatten(1).double() / 255 for picture in pictures], dim=1)
    height, width = sizes.amin(dim=0).tolist()
    return Overlays(values.to(device), first.to(device), sizes.to(device), (height, width))


def procedural_overlays(side: int = 512) -> Tensor:
    """Generate five overlays of veined ice, the same at every call.

    Veins are the ridges 1 - |2 h - 1| of a coarse height map, grains a fine one; their sum is
    given the mean colours and the contrast of the photographs.

    Args:
        side: a power of two, pixels.

    Returns:
        float64 (5, 3, side, side), whole grey levels 0..255.
    """
    looks = torch.tensor(_LOOKS, dtype=torch.float64)[:, :, None, None]
    random = Random(torch.arange(len(_LOOKS)))
    coarse = diamond_square(random, side, 1.7)
    fine = diamond_square(random, side, 1.2)
    veins = (1 - (2 * coarse - 1).abs()) ** 4
    texture = veins / veins.std(dim=(1, 2), keepdim=True)
    texture = texture + fine / fine.std(dim=(1, 2), keepdim=True)
    texture = texture - texture.mean(dim=(1, 2), keepdim=True)
    texture = (texture / texture.std(dim=(1, 2), keepdim=True))[:, None]
    return (looks[:, :3] + looks[:, 3:] * texture).round_().clamp_(0, 255)
