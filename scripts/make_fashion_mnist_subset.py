"""Makes the embedded subset of Fashion-MNIST from the four original files:

python -m scripts.make_fashion_mnist_subset FOLDER
"""

import hashlib
import json
import lzma
import sys
from pathlib import Path

import torch

from reference_training.data.fashion_mnist import (
    CLASSES,
    FILES,
    SUBSET,
    SUBSET_SIZES,
    find_folder,
    read_idx,
)
from reference_training.data.images import balanced


def make_subset(folder: Path) -> None:
    """Writes the embedded subset and the hashes of what it was made from."""
    images, labels = [], []
    for split, per_class in SUBSET_SIZES.items():
        all_labels = read_idx(folder / FILES[f"{split}_labels"]).long()
        chosen = balanced(all_labels, per_class * CLASSES)
        images.append(read_idx(folder / FILES[f"{split}_images"])[chosen])
        labels.append(all_labels[chosen])
    packed = lzma.compress(torch.cat(images).numpy().tobytes(), preset=9)
    (SUBSET / "images.xz").write_bytes(packed)
    record = {
        "source": "https://github.com/zalandoresearch/fashion-mnist",
        "selection": f"the first images of each class, in file order: {SUBSET_SIZES}",
        "original_sha256": {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name in FILES.values()
        },
        "images_sha256": hashlib.sha256(packed).hexdigest(),
        "labels": "".join(str(int(label)) for label in torch.cat(labels)),
    }
    (SUBSET / "origin.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    make_subset(find_folder(Path(sys.argv[1])))
