"""Degraded images made from clean ones while they are evaluated; nothing is stored."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reference_training.corruptions import CorruptionOptions, corrupt, frost_source
from reference_training.corruptions.checks import position_seeds
from reference_training.data.samples import CleanImages, EvaluationSet, Samples
from reference_training.runtime.errors import RunError

SEEDS = 2**31
QUALITY = 85


def stored_as_jpeg(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) as they come back from the JPEG files of the published ImageNet-C.

    By Pillow on the CPU for every device, at quality 85 with 4:2:0 chroma, as its generator does
    (which also optimises the files' size; that changes no pixel).
    """
    stored = [_stored(image) for image in images.movedim(1, -1).cpu().numpy()]
    return torch.from_numpy(np.stack(stored)).movedim(-1, 1).to(images.device)


def _stored(levels: np.ndarray) -> np.ndarray:
    with io.BytesIO() as file:
        Image.fromarray(levels).save(file, "JPEG", quality=QUALITY)
        return np.asarray(Image.open(file))


class OnTheFly:
    """Clean images, and every corruption of them.

    What an image becomes depends on the seed, its position, the corruption and the severity
    alone: not on the batch, the device or the number of workers.

    Args:
        clean: the images.
        options: how they are degraded.
        seed: of the random corruptions; 0 is what a run evaluates with.
        jpeg85: whether degraded images pass through a JPEG of quality 85, as all images of the
            published ImageNet-C have.

    Raises:
        RunError: an option is wrong.
    """

    def __init__(
        self,
        clean: CleanImages,
        options: CorruptionOptions | None = None,
        *,
        seed: int = 0,
        jpeg85: bool = False,
    ) -> None:
        if not 0 <= seed < SEEDS:
            raise RunError(f"--seed is {seed}, but must be from 0 to {SEEDS - 1}.")
        self.clean_images = clean
        self.options = options or CorruptionOptions()
        self.seed = seed
        self.jpeg85 = jpeg85
        try:
            self.frost = frost_source(self.options.frost)
        except (ValueError, FileNotFoundError) as error:
            raise RunError(str(error)) from error
        self.classes = clean.classes
        self.labels = clean.labels
        self.files = clean.files
        self.clean_sets = clean.clean_sets
        remarks = ["JPEG 85"] if jpeg85 else []
        remarks += ["generated frost"] if self.frost.startswith("procedural") else []
        self.name = ", ".join([clean.name, "corrupted on the fly", *remarks])
        self.is_imagenet = clean.is_imagenet

    @property
    def identity(self) -> dict[str, Any]:
        """The clean images and all that decides what they become."""
        return {
            "clean": self.clean_images.identity,
            "corruptions": vars(self.options) | {"frost": self.frost},
            "seed": self.seed,
            "jpeg85": self.jpeg85,
        }

    def check(self, sets: Sequence[EvaluationSet]) -> None:
        """Raises RunError for sets that cannot be made of these images, by making one image."""
        image = self.clean_images.clean(self.clean_sets[0]).images[0][None]
        first = torch.zeros(1, dtype=torch.int64)
        for name, severity in {place[0]: place for place in sets if place[1]}.values():
            try:
                self._degrade(image, first, name, severity)
            except ValueError as error:
                raise RunError(str(error)) from error

    def mark(self, place: EvaluationSet) -> str:
        """What tells the clean images from others in their place."""
        return self.clean_images.mark

    def samples(self, place: EvaluationSet) -> Samples:
        """The images of one set."""
        name, severity = place
        if name in self.clean_sets:
            return self.clean_images.clean(name)
        return replace(
            self.clean_images.clean(self.clean_sets[0]),
            degrade=lambda images, positions: self._degrade(images, positions, name, severity),
        )

    def _degrade(self, images: Tensor, positions: Tensor, name: str, severity: int) -> Tensor:
        seeds = position_seeds(self.seed, positions)
        degraded = corrupt(images, name, severity, seeds=seeds, **vars(self.options))
        return stored_as_jpeg(degraded) if self.jpeg85 else degraded
