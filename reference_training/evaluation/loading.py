"""Images by position, read in batches by worker processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reference_training.data.samples import Images
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
