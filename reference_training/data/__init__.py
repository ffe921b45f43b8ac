"""Datasets of 32×32 RGB images in memory, by name: `load("fashion-mnist-subset")`."""

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
from reference_training.data.images import Dataset
from reference_training.runtime.errors import RunError

DATASETS: dict[str, Callable[[Path | None], Dataset]] = {
    "fashion-mnist-subset": load_fashion_mnist_subset,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "digits": load_digits,
}
"""A new dataset is one function of the data folder and one entry here."""


def load(name: str, data_root: Path | None = None) -> Dataset:
    """The dataset called `name`.

    Args:
        name: a key of `DATASETS`.
        data_root: the folder with its files, for those that are not embedded.
    Raises:
        RunError: an unknown name, or files that are missing or damaged.
    """
    if name not in DATASETS:
        raise RunError(f"unknown dataset {name!r}; use one of {sorted(DATASETS)}.")
    if data_root is not None and not data_root.is_dir():
        raise RunError(f"the data folder {data_root} does not exist; check --data-root.")
    return DATASETS[name](data_root)


__all__ = ["DATASETS", "Dataset", "load"]
