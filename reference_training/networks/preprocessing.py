"""From 8-bit images to what a network expects."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from reference_training.runtime.errors import RunError


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects: (x/255 − mean)/std for each channel, at its own size."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int | None = None
    """Images of another size are resized to so many pixels a side; None leaves them."""

    def __post_init__(self) -> None:
        """Raises RunError for numbers on another scale."""
        if not (
            len(self.mean) == len(self.std) == 3
            and all(0 <= value <= 1 for value in self.mean)
            and all(0 < value <= 1 for value in self.std)
        ):
            raise RunError(
                f"the images' mean {self.mean} and std {self.std} must be three numbers each, from "
                "0 to 1, of images with levels from 0 to 1; divide those of 0 to 255 by 255, and "
                "give them as --mean and --std."
            )

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32."""
        x = images.float() / 255
        if self.input_size is not None and x.shape[-2:] != (self.input_size, self.input_size):
            size = [self.input_size, self.input_size]
            x = functional.interpolate(x, size, mode="bilinear", antialias=True)
        mean, std = (x.new_tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (x - mean) / std
