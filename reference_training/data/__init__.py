"""Datasets of square RGB images, by name: `load("fashion-mnist-subset")`."""

from collections.abc import Callable
from pathlib import Path

from ulfd.extras import require

# Before what needs them, and not for all of `reference_training`: the corruptions need less.
require(
    "torch",
    "torchvision",
    "PIL",
    "tyro",
    "tqdm",
    "safetensors",
    "matplotlib",
    "sklearn",
    extra="train",
)

from reference_training.data.cifar10 import load_cifar10
from reference_training.data.digits import load_digits
from reference_training.data.fashion_mnist import load_fashion_mnist, load_fashion_mnist_subset
from reference_training.data.folders import PHOTOGRAPHS, load_photographs
from reference_training.data.images import SIDE, Dataset
from reference_training.runtime.errors import RunError

SMALL: dict[str, Callable[[Path | None], Dataset]] = {
    "fashion-mnist-subset": load_fashion_mnist_subset,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "digits": load_digits,
}
"""Datasets of one size, 32×32, held in memory: one function of the data folder and one entry."""
DATASETS = tuple(dict.fromkeys((*SMALL, *PHOTOGRAPHS)))
SMALLEST = 32


def load(name: str, data_root: Path | None = None, side: int = SIDE) -> Dataset:
    """The dataset called `name`.

    Args:
        name: one of `DATASETS`.
        data_root: the folder with its files, for those that are not embedded.
        side: of its square images, pixels.
    Raises:
        RunError: an unknown name, files that are missing or damaged, or a size that it has not.
    """
    if name not in DATASETS:
        raise RunError(f"unknown dataset {name!r}; use one of {sorted(DATASETS)}.")
    if data_root is not None and not data_root.is_dir():
        raise RunError(f"the data folder {data_root} does not exist; check --data-root.")
    if name not in SMALL:
        if side < SMALLEST:
            raise RunError(f"--side is {side} pixels, but must be at least {SMALLEST}.")
        return load_photographs(name, data_root, side)
    if side != SIDE:
        raise RunError(
            f"the images of {name} have {SIDE} pixels a side; leave --side {side} out, or choose "
            f"one of {', '.join(set(DATASETS) - set(SMALL))}."
        )
    return SMALL[name](data_root)


__all__ = ["DATASETS", "Dataset", "load"]
