"""The one loop over a set: images by position, in batches, to what a network predicts of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from reference_training.data.samples import Images
from reference_training.evaluation.adaptation import NONE, Adaptation
from reference_training.runtime.errors import RunError


class _Guarded(Dataset):
    """The images; an error comes as a value, as it could not leave a worker unharmed."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __getitem__(self, position: int) -> Tensor | RunError:
        try:
            return self.images[position]
        except RunError as error:
            return error


def _collate(items: list[Tensor | RunError]) -> Tensor | RunError:
    errors = [item for item in items if isinstance(item, RunError)]
    return errors[0] if errors else torch.stack(items)  # type: ignore[arg-type]


@dataclass
class Batches:
    """A set's images as a network sees them, each batch anew.

    Iterating raises RunError where an image is unreadable, or a worker was killed.
    """

    images: Images
    positions: Tensor
    """int64 (N,): which and in which order."""
    size: int
    """Of a batch."""
    prepare: Callable[[Tensor, Tensor], Tensor]
    """(uint8 (B, 3, H, W), their positions int64 (B,)) to the network's input."""
    workers: int = 0
    """Processes which read images; 0 reads in this one."""

    def __iter__(self) -> Iterator[Tensor]:
        parts = self.positions.split(self.size)
        loaded: Iterable[Tensor | RunError]
        if isinstance(self.images, Tensor):  # in memory already
            loaded = (self.images[rows] for rows in parts)
        else:
            loaded = DataLoader(
                _Guarded(self.images),
                batch_sampler=[rows.tolist() for rows in parts],
                num_workers=self.workers,
                collate_fn=_collate,
            )
        read = iter(loaded)
        for self.rows in parts:  # the positions of the newest batch
            try:
                batch = next(read)
            except RuntimeError as error:
                raise RunError(
                    f"a process that reads images ended ({error}), perhaps for want of memory. Run "
                    "the same command again, it continues; fewer --workers need less memory."
                ) from error
            if isinstance(batch, RunError):
                raise batch
            yield self.prepare(batch, self.rows)


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
