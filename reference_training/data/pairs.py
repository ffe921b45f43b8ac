"""Batches of (clean, degraded) pairs, each a pure function of (seed, iteration).

Which sample, which flip, which corruption: all of it is computed from the seed and the iteration,
never from a generator's state, so that a run continues at any iteration exactly as it would have
gone on.
"""

import os
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from shutil import disk_usage
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reference_training.corruptions import CorruptionOptions
from reference_training.corruptions.random import Random
from reference_training.data.batch import Batch
from reference_training.data.images import SIDE, Dataset
from reference_training.data.sampling import pair_seeds, samples_at
from reference_training.data.second_images import Corruptions, Draws, flipped, second_image

CHUNK = 16
"""Iterations of 32×32 images degraded together, fewer of larger ones: large groups of one
corruption make it several times faster."""

KEPT = 2**28
"""Bytes of second images of one kind that are kept for each seed of a run, on a disk where as many
stay free."""


def normalised(images: Tensor) -> Tensor:
    """Images in grey levels to float32 in [−1, 1], (B, 3, H, W) in channels-last memory."""
    scaled = images.to(torch.float32, copy=True).div_(127.5).sub_(1.0)
    return scaled.contiguous(memory_format=torch.channels_last) if scaled.dim() == 4 else scaled


@dataclass(frozen=True)
class Pairs:
    """The training batches of one run."""

    dataset: Dataset
    """Whose training images are paired."""
    _: KW_ONLY
    batch_size: int
    seed: int
    """Of the run; methods with one seed see the same pairs in the same order."""
    second: str
    """What the second image of each pair is; a key of `SECOND_IMAGES`."""
    frost: str
    """Which frost overlays; see `corruptions.frost_source`."""
    second_views: int = 1
    """How many second images, see `second_image`."""
    kept: Path | None = None
    """A folder of this dataset, seed and frost, where the next that asks finds the second images
    that were made already: those of the first iterations, up to `KEPT`."""

    def samples(self, first: int, last: int) -> Tensor:
        """The indices of the samples of the iterations first, ..., last − 1, in order."""
        positions = torch.arange(first * self.batch_size, last * self.batch_size)
        return samples_at(positions, seed=self.seed, total=len(self.dataset.train_labels))

    def describe(self, iteration: int) -> dict[str, Any]:
        """What a batch consisted of, for the report about one that went wrong."""
        return {"samples": self.samples(iteration, iteration + 1).tolist()}

    def check(self) -> None:
        """Nothing can go wrong with images in memory."""

    def _chunk(self, first: int, last: int) -> Iterator[Batch]:
        samples = self.samples(first, last)
        clean = self.dataset.train_images[samples]
        labels = self.dataset.train_labels[samples]
        step_of = torch.arange(first, last).repeat_interleave(self.batch_size)
        seeds = pair_seeds(self.seed, step_of, samples)
        random = Random(seeds)
        positions = torch.arange(first * self.batch_size, last * self.batch_size)
        corruptions = Corruptions(options=CorruptionOptions(frost=self.frost))
        draws = Draws(seeds, random, positions, self.seed, corruptions)
        second, flip = self._second(clean, draws, first, last)
        pairs = [clean] if second is clean else [clean, second]
        if self.dataset.flips:
            pairs = [flipped(images, flip) for images in pairs]
        for start in range(0, len(samples), self.batch_size):
            rows = slice(start, start + self.batch_size)
            batch = [normalised(images[rows]) for images in pairs]
            yield Batch(batch[0], batch[-1], labels[rows])

    def _second(self, clean: Tensor, draws: Draws, first: int, last: int) -> tuple[Tensor, Tensor]:
        """The second images, and which pairs are flipped: drawn after them, from one stream."""

        def made() -> tuple[Tensor, Tensor]:
            second = second_image(self.second, clean, draws, self.second_views)
            return second, draws.random.uniform(1)[:, 0] < 0.5

        if self.kept is None or self.second == "clean":
            return made()
        which = self.second, self.second_views, self.batch_size, len(self.dataset.train_labels)
        path = self.kept / "-".join(map(str, (*which, first, last)))
        if path.is_file():
            with np.load(path) as found:
                return torch.from_numpy(found["second"]), torch.from_numpy(found["flip"])
        second, flip = made()
        self.kept.mkdir(parents=True, exist_ok=True)
        if second.nbytes * last // (last - first) > KEPT or disk_usage(self.kept).free < KEPT:
            return second, flip
        part = path.with_suffix(f".{os.getpid()}")
        try:
            with part.open("wb") as file:
                np.savez(file, second=second.numpy(), flip=flip.numpy())
            part.replace(path)
        except OSError:  # a disk that another filled: they are made anew each time
            part.unlink(missing_ok=True)
        return second, flip

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of the iterations first, ..., last − 1."""
        chunk = max(1, CHUNK * SIDE**2 // self.dataset.train_images[0, 0].numel())
        for start in range(first, last, chunk):
            yield from self._chunk(start, min(start + chunk, last))
