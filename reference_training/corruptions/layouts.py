"""Images as people hold them, as a batch of 8-bit RGB levels and back: what comes in comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Images = TypeVar("Images", Tensor, np.ndarray, Image.Image)
Back = Callable[[Tensor, Sequence[str]], Any]

# These draw for each channel anew, and a mixture of three draws would be a weaker noise.
_NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
_LUMA = (299, 587, 114)  # thousandths, of ITU-R 601: as Pillow makes grey of RGB


def as_batch(images: Any) -> tuple[Tensor, Back]:
    """Images of any type as a batch, and what turns a batch into that type again.

    Args:
        images: see `corrupt`.

    Returns:
        uint8 (B, 3, H, W), and a function of such a batch and of its images' corruptions. For grey
        images it keeps the luma of the three channels, and of noises, which are drawn for each
        channel, the first.

    Raises:
        TypeError: no image, or of another dtype or mode.
        ValueError: another shape, or values outside [0, 1].
    """
    if isinstance(images, Image.Image):
        if images.mode not in ("RGB", "L"):
            raise TypeError(
                f"images: expected a picture of mode RGB or L, got {images.mode}; convert it with "
                '.convert("RGB"), which gives up transparency and palettes'
            )
        batch, as_array = as_batch(np.array(images))
        return batch, lambda levels, names: Image.fromarray(as_array(levels, names))
    if isinstance(images, np.ndarray):
        return _from_array(images)
    if not isinstance(images, Tensor):
        raise TypeError(
            "images: expected a torch.Tensor, a NumPy array or a PIL.Image, got "
            f"{type(images).__name__}"
        )
    _check_elements(images)
    shape, dtype = images.shape, images.dtype
    if images.ndim not in (3, 4) or shape[-3] not in (1, 3):
        raise ValueError(
            "images: expected a tensor of shape (B, 3, H, W), (B, 1, H, W), (3, H, W) or "
            f"(1, H, W), got {tuple(shape)}; {_remedy(shape)}"
        )
    if 0 in shape[-2:]:
        raise ValueError(f"images: expected at least one pixel each way, got {tuple(shape)}")
    levels = _levels(images if len(shape) == 4 else images[None]).expand(-1, 3, -1, -1)

    def back(corrupted: Tensor, names: Sequence[str]) -> Tensor:
        if shape[-3] == 1:
            corrupted = _grey(corrupted, names)
        if dtype != torch.uint8:
            # The divisor is a tensor, for a GPU would multiply by a number's rounded reciprocal.
            wide = torch.promote_types(dtype, torch.float32)
            corrupted = corrupted.to(wide)
            corrupted = corrupted.div_(corrupted.new_full((), 255)).to(dtype)
        return corrupted.view(shape)

    return levels, back


def _check_elements(images: Tensor) -> None:
    """Raises TypeError for a tensor whose elements cannot be read."""
    if images.is_nested or images.layout != torch.strided:
        kind = "nested" if images.is_nested else str(images.layout).removeprefix("torch.")
        raise TypeError(
            f"images: expected a dense tensor, got one of the layout {kind}; sparse ones have "
            ".to_dense()"
        )


def _from_array(images: np.ndarray) -> tuple[Tensor, Back]:
    if isinstance(images, np.ma.MaskedArray):
        raise TypeError("images: a masked array's mask would be lost; give .filled(value)")
    shape = images.shape
    grey = images.ndim == 2 or (images.ndim in (3, 4) and shape[-1] == 1)
    if not grey and (images.ndim not in (3, 4) or shape[-1] != 3):
        raise ValueError(
            "images: expected an array of shape (H, W, 3), (H, W) or (B, H, W, 3), got "
            f"{shape}; in NumPy the channels stand last: grey images need .reshape(B, H, W, 1), "
            "and those with the channels first np.moveaxis(images, -3, -1)"
        )
    channels = images[..., None] if images.ndim == 2 else images
    # A copy: torch knows neither negative strides, nor arrays that must not be written.
    try:
        tensor = torch.from_numpy(np.array(channels, dtype=images.dtype.newbyteorder("="))).clone()
    except TypeError as error:
        raise TypeError(
            f"images: expected uint8, or floating point in [0, 1], got {images.dtype}"
        ) from error
    batch, back = as_batch(tensor.movedim(-1, -3).contiguous())

    def as_array(levels: Tensor, names: Sequence[str]) -> np.ndarray:
        array = back(levels, names).movedim(-3, -1).contiguous().numpy().reshape(shape)
        return array.astype(images.dtype, copy=False)

    return batch, as_array


def _remedy(shape: Sequence[int]) -> str:
    """How to bring a tensor of another shape into one that is taken."""
    if len(shape) in (3, 4) and shape[-1] in (1, 3):
        axes = "0, 3, 1, 2" if len(shape) == 4 else "2, 0, 1"
        return f"in torch the channels stand before height and width: .permute({axes})"
    if len(shape) == 2:
        return "a grey image needs its one channel: .unsqueeze(0)"
    return "images have one or three channels, which stand before height and width"


def _levels(images: Tensor) -> Tensor:
    """uint8 as it is; floating point in [0, 1] rounded to 8 bits."""
    if images.dtype == torch.uint8:
        return images.contiguous()
    if images.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(
            f"images: expected uint8, or floating point in [0, 1], got {images.dtype}; grey levels "
            "from 0 to 255 become uint8 by .to(torch.uint8), in NumPy .astype(np.uint8), others "
            "floating point by a division"
        )
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(
            f"images: floating point must lie in [0, 1], got {images.min().item():g} to "
            f"{images.max().item():g}; corrupt before normalising, and divide grey levels by 255"
        )
    if images.dtype == torch.float64:
        return images.mul(255).round_().to(torch.uint8).contiguous()
    # 255 x rounded to the nearest, without error and without float64, which not every device has.
    fixed = (images.to(torch.float32) * 2.0**32).to(torch.int64)
    return fixed.mul_(255).add_(1 << 31).bitwise_right_shift_(32).to(torch.uint8).contiguous()


def _grey(levels: Tensor, names: Sequence[str]) -> Tensor:
    """(B, 1, H, W) of (B, 3, H, W)."""
    weights = torch.tensor([(1000, 0, 0) if name in _NOISES else _LUMA for name in names])
    weights = weights.view(-1, 3, 1, 1).to(levels.device, torch.int32)
    mixed = (levels.to(torch.int32) * weights).sum(1, keepdim=True, dtype=torch.int32)
    return mixed.add_(500).div_(1000, rounding_mode="floor").to(torch.uint8)
