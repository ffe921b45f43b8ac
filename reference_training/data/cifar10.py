"""CIFAR-10 (Krizhevsky 2009) from its published files, or from class folders."""

from pathlib import Path
from typing import Any

import torch

from reference_training.data.folders import PHOTOGRAPHS, TRAIN, load_photographs
from reference_training.data.images import SIDE, Dataset
from reference_training.runtime.errors import RunError


def _split(source: Any) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(source.targets)


def load_cifar10(data_root: Path | None = None) -> Dataset:
    """50,000 training and 10,000 test images.

    torchvision's files are pickles, but it opens them only after their checksums agree with
    those of the published ones, so nothing else is ever unpickled.

    Args:
        data_root: the folder that holds `cifar-10-batches-py`, or train/ and test/ with class
            folders.
    Raises:
        RunError: the files are missing or are not the published ones.
    """
    root = data_root or Path("data")
    if (root / TRAIN).is_dir():
        return load_photographs("cifar10", root, SIDE)
    from torchvision import datasets  # slow to import, and only this dataset needs it

    try:
        train = datasets.CIFAR10(root, train=True, download=False)
        test = datasets.CIFAR10(root, train=False, download=False)
    except RuntimeError as error:
        raise RunError(
            f"CIFAR-10 is not in {root / 'cifar-10-batches-py'}, or its files are damaged. Get "
            "it with\n    python -c \"import torchvision; torchvision.datasets.CIFAR10('"
            f"{root}', download=True)\"\nand pass --data-root {root}; or give a folder with train/ "
            "and test/ and class folders in them."
        ) from error
    (train_images, train_labels), (test_images, test_labels) = _split(train), _split(test)
    return Dataset(
        name="cifar10",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=10,
        flips=True,
        description=PHOTOGRAPHS["cifar10"].description,
        licence=PHOTOGRAPHS["cifar10"].licence,
    )
