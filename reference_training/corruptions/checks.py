"""The arguments of `corrupt`, checked: each message says what came, what was due, what to do."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from .filters import supports_float64
from .parameters import Rows
from .registry import CORRUPTIONS, SEMANTICS, SEVERITIES, Semantics


def _remedy(images: Tensor) -> str:
    """How to bring images of another shape into (B, 3, H, W)."""
    if images.ndim == 4 and images.shape[1] == 1:
        return "repeat the one channel of grey images with .expand(-1, 3, -1, -1)"
    if images.ndim == 4 and images.shape[3] == 3:
        return "the channels stand before height and width: .permute(0, 3, 1, 2)"
    if images.ndim == 3 and images.shape[0] == 3:
        return "a single image needs a leading axis: .unsqueeze(0)"
    return "a batch of images of three channels, which stand before height and width"


def image_levels(images: Tensor) -> Tensor:
    """Images as 8-bit grey levels.

    Args:
        images: (B, 3, H, W), uint8, or floating point in [0, 1], which is rounded to 8 bits.

    Returns:
        uint8 (B, 3, H, W).

    Raises:
        TypeError: not a tensor, or of another dtype.
        ValueError: another shape, or values outside [0, 1].
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images: expected a torch.Tensor, got {type(images).__name__}")
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"images: expected shape (B, 3, H, W), got {tuple(images.shape)}; {_remedy(images)}"
        )
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise TypeError(
            f"images: expected uint8, or floating point in [0, 1], got {images.dtype}; "
            "convert with .to(torch.uint8)"
        )
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(
            f"images: floating point must lie in [0, 1], got {images.min().item():g} to "
            f"{images.max().item():g}; corrupt before normalising, and divide grey levels by 255"
        )
    computed = images if supports_float64(images.device) else images.cpu()
    return computed.to(torch.float64).mul_(255).round_().to(images.device, torch.uint8)


def corruption_codes(corruption: str | Sequence[str], batch: int) -> list[int]:
    """The position in `CORRUPTIONS` of each image's type.

    Args:
        corruption: one name, or one for each image.
        batch: how many images.

    Returns:
        `batch` positions.

    Raises:
        TypeError: not names.
        ValueError: an unknown name, or another number of names.
    """
    names = [corruption] * batch if isinstance(corruption, str) else list(corruption)
    code = {name: position for position, name in enumerate(CORRUPTIONS)}
    for name in {corruption} if isinstance(corruption, str) else set(names):
        if not isinstance(name, str):
            raise TypeError(f"corruption: expected names, got {type(name).__name__}")
        if name not in code:
            near = difflib.get_close_matches(name, CORRUPTIONS, n=1)
            guess = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"corruption: {name!r} is unknown; {guess}known are {', '.join(CORRUPTIONS)}"
            )
    _same_length("corruption", len(names), batch)
    return [code[name] for name in names]


def severity_levels(severity: int | Sequence[int] | Tensor, batch: int) -> list[int]:
    """Each image's severity.

    Args:
        severity: one whole number, or one for each image.
        batch: how many images.

    Returns:
        `batch` numbers 1..5.

    Raises:
        TypeError: not whole numbers.
        ValueError: outside 1..5, or another number of severities.
    """
    given = severity.tolist() if isinstance(severity, Tensor) else severity
    each = list(given) if isinstance(given, Sequence) else [given] * batch
    try:
        levels = [operator.index(level) for level in each]
    except TypeError as error:
        raise TypeError(f"severity: expected whole numbers 1..5, got {severity!r}") from error
    for level in set(levels) - set(SEVERITIES):
        raise ValueError(f"severity: expected 1, 2, 3, 4 or 5, got {level}")
    _same_length("severity", len(levels), batch)
    return levels


def image_seeds(seeds: int | Sequence[int] | Tensor, batch: int) -> Tensor:
    """One seed for each image.

    Args:
        seeds: integers, one for each image; a single int for a batch of one.
        batch: how many images.

    Returns:
        int64 (B,) on the CPU, where each image's few steering numbers are drawn.

    Raises:
        TypeError: not integers.
        ValueError: another number of seeds.
    """
    keys = torch.as_tensor(seeds, device="cpu")
    if batch == 0 and keys.numel() == 0:
        return torch.zeros(0, dtype=torch.int64, device="cpu")
    if keys.is_floating_point() or keys.is_complex() or keys.dtype == torch.bool:
        raise TypeError(f"seeds: expected integers (int64), got {keys.dtype}")
    if keys.ndim > 1:
        raise ValueError(f"seeds: expected shape ({batch},), got {tuple(keys.shape)}")
    _same_length("seeds", keys.numel(), batch)
    return keys.reshape(batch).to(torch.int64)


def definition(name: str) -> Semantics:
    """The public definition to follow.

    Args:
        name: a key of `SEMANTICS`.

    Returns:
        Its functions and parameter sets.

    Raises:
        ValueError: an unknown name.
    """
    if name not in SEMANTICS:
        known = ", ".join(repr(key) for key in SEMANTICS)
        raise ValueError(f"semantics: {name!r} is unknown; known are {known}")
    return SEMANTICS[name]


def parameter_rows(semantics: Semantics, name: str | None, height: int, width: int) -> Rows:
    """The severities to use.

    Args:
        semantics: the definition, which has its own sets.
        name: of one of its sets, or None for the set published for the image size.
        height, width: of the images, pixels.

    Returns:
        The set's five rows for each type.

    Raises:
        ValueError: an unknown name, or no set published for the size.
    """
    sets = semantics.parameter_sets
    known = ", ".join(f"{key!r} ({h}x{w})" for key, ((h, w), _) in sets.items())
    if name is not None:
        if name not in sets:
            raise ValueError(f"parameters: {name!r} is unknown; known here are {known}")
        return sets[name].rows
    for candidate in sets.values():
        if candidate.image_size == (height, width):
            return candidate.rows
    raise ValueError(
        f"parameters: no severities are published for {height}x{width} images; known here are "
        f"{known}. Resize the images, or name the set to use all the same; but numbers in pixels "
        "made for another size change the severity: those for 224x224 destroy 32x32 images"
    )


def _same_length(argument: str, given: int, batch: int) -> None:
    if given != batch:
        raise ValueError(
            f"{argument}: expected one for each image of the batch ({batch}), got {given}"
        )
