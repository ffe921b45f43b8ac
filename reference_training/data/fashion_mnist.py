"""Fashion-MNIST (Xiao et al. 2017, MIT licence): a fixed subset that is embedded, and all of it.

The subset is the first 800 training and the first 200 test images of each class, made by
`python -m scripts.make_fashion_mnist_subset`.
"""

import gzip
import hashlib
import json
import lzma
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reference_training.data.images import Dataset, grey_to_rgb
from reference_training.runtime.errors import RunError

CLASSES = 10
SUBSET = Path(__file__).parent / "fashion_mnist_subset"
SUBSET_SIZES = {"train": 800, "test": 200}  # images of each class
FILES = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}
# Where Debian's package and torchvision (below the folder given) put the files.
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
TORCHVISION = Path("FashionMNIST/raw")


def read_idx(path: Path) -> Tensor:
    """A gzipped IDX file of unsigned bytes as a uint8 tensor.

    Raises:
        RunError: the file is not one, or is cut off.
    """
    try:
        data = gzip.decompress(path.read_bytes())
        # Magic number: two zero bytes, the type (8 = unsigned byte), the number of axes.
        rank = data[3]
        shape = tuple(int(size) for size in np.frombuffer(data, ">u4", count=rank, offset=4))
        values = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
        if data[:3] != b"\0\0\x08" or values.size != np.prod(shape):
            raise ValueError("wrong header or length")
        return torch.from_numpy(values.reshape(shape).copy())
    except (ValueError, IndexError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RunError(f"{path} is no readable IDX file ({error}); fetch it again.") from error


def find_folder(data_root: Path | None) -> Path:
    """The folder that holds the four original files.

    Raises:
        RunError: none of the known places has them.
    """
    places = [DEBIAN] if data_root is None else [data_root, data_root / TORCHVISION]
    for place in places:
        if all((place / name).is_file() for name in FILES.values()):
            return place
    raise RunError(
        f"Fashion-MNIST's files {sorted(FILES.values())} are in none of "
        f"{[str(place) for place in places]}. Install Debian's package dataset-fashion-mnist, or "
        "download them from https://github.com/zalandoresearch/fashion-mnist and pass their "
        "folder as --data-root."
    )


def _dataset(name: str, parts: dict[str, Tensor], description: str) -> Dataset:
    return Dataset(
        name=name,
        train_images=grey_to_rgb(parts["train_images"]),
        train_labels=parts["train_labels"].long(),
        test_images=grey_to_rgb(parts["test_images"]),
        test_labels=parts["test_labels"].long(),
        classes=CLASSES,
        flips=True,
        description=description,
        licence="MIT, (c) 2017 Zalando SE",
    )


def load_fashion_mnist(data_root: Path | None = None) -> Dataset:
    """All of Fashion-MNIST: 60,000 training and 10,000 test images.

    Args:
        data_root: the folder with the original files; None looks where Debian puts them.
    """
    folder = find_folder(data_root)
    parts = {part: read_idx(folder / name) for part, name in FILES.items()}
    return _dataset("fashion-mnist", parts, "Fashion-MNIST, all of it, padded to 32x32 RGB")


def load_fashion_mnist_subset(data_root: Path | None = None) -> Dataset:
    """The embedded subset: 8,000 training and 2,000 test images, no download.

    Raises:
        RunError: the embedded file is damaged.
    """
    record = json.loads((SUBSET / "origin.json").read_text())
    path = SUBSET / "images.xz"
    packed = path.read_bytes()
    if hashlib.sha256(packed).hexdigest() != record["images_sha256"]:
        raise RunError(f"{path} is damaged (its SHA-256 differs); reinstall ulfd.")
    images = torch.from_numpy(
        np.frombuffer(lzma.decompress(packed), np.uint8).reshape(-1, 28, 28).copy()
    )
    labels = torch.tensor([int(digit) for digit in record["labels"]])
    train = CLASSES * SUBSET_SIZES["train"]
    parts = {
        "train_images": images[:train],
        "train_labels": labels[:train],
        "test_images": images[train:],
        "test_labels": labels[train:],
    }
    return _dataset(
        "fashion-mnist-subset", parts, "Fashion-MNIST, a fixed subset, padded to 32x32 RGB"
    )
