"""The one loop over a set: images by position, in batches, to what a network predicts of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from reference_training.data.samples import Images
from reference_training.evaluation.adaptation import NONE, Adaptation
from reference_training.runtime.errors import RunError


class _Guarded(Dataset):
    """The chosen images; an error comes as a value, as it could not leave a worker unharmed."""

    def __init__(self, images: Images, positions: list[int]) -> None:
        self.images = images
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Tensor | RunError:
        try:
            return self.images[self.positions[index]]
        except RunError as error:
            return error


def _collate(items: list[Tensor | RunError]) -> Tensor | RunError:
    errors = [item for item in items if isinstance(item, RunError)]
    return errors[0] if errors else torch.stack(items)  # type: ignore[arg-type]


def batches(
    images: Images, positions: Tensor, batch_size: int, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images at the positions, uint8 (B, 3, H, W), and these positions int64 (B,), in order.

    Raises:
        RunError: an image is unreadable, or a worker was killed.
    """
    if isinstance(images, Tensor):  # in memory already
        yield from ((images[rows], rows) for rows in positions.split(batch_size))
        return
    loader = DataLoader(
        _Guarded(images, positions.tolist()),
        batch_size,
        num_workers=workers,
        collate_fn=_collate,
    )
    try:
        for batch, rows in zip(loader, positions.split(batch_size), strict=True):
            if isinstance(batch, RunError):
                raise batch
            yield batch, rows
    except RuntimeError as error:
        raise RunError(
            f"a process that reads images ended ({error}), perhaps for want of memory. Run the "
            "same command again, it continues; fewer --workers need less memory."
        ) from error


class Batches:
    """A set's images as a network sees them, each batch anew.

    Args:
        images: of the set.
        positions: int64 (N,), which and in which order.
        size: of a batch.
        prepare: (uint8 (B, 3, H, W), their positions int64 (B,)) to the network's input.
        workers: processes which read images; 0 reads in this one.
    """

    def __init__(
        self,
        images: Images,
        positions: Tensor,
        size: int,
        prepare: Callable[[Tensor, Tensor], Tensor],
        workers: int = 0,
    ) -> None:
        self.images = images
        self.positions = positions
        self.size = size
        self.prepare = prepare
        self.workers = workers
        self.rows = positions[:0]
        """The positions of the newest batch."""

    def __iter__(self) -> Iterator[Tensor]:
        for images, rows in batches(self.images, self.positions, self.size, self.workers):
            self.rows = rows
            yield self.prepare(images, rows)


def predictions(
    model: nn.Module, inputs: Batches, adaptation: Adaptation = NONE
) -> Iterator[tuple[Tensor, Tensor]]:
    """The logits (B, classes) of each batch, and its positions int64 (B,).

    Args:
        model: in eval mode.
        inputs: a set; in random order where the network adapts to it.
        adaptation: how it does.
    """
    for logits in adaptation.predict(model, inputs):
        yield logits, inputs.rows
