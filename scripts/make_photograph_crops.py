"""A small ImageFolder of crops of real photographs, to try the full-scale path without ImageNet:

    python -m scripts.make_photograph_crops crops --broken 3

The photographs ship with scikit-image and scikit-learn; each is a class. Nothing is downloaded.
"""

import argparse
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from reference_training.runtime.files import write_atomically
from ulfd.extras import require

SIDES = (72, 120)  # of the crops, pixels
SKIMAGE = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "retina", "rocket")
SKLEARN = ("china", "flower")


def photographs() -> dict[str, np.ndarray]:
    """uint8 (H, W, 3) by name."""
    require("skimage", extra="test")
    from skimage import data
    from sklearn.datasets import load_sample_image

    return {name: getattr(data, name)() for name in SKIMAGE} | {
        name: load_sample_image(f"{name}.jpg") for name in SKLEARN
    }


def _encoded(image: np.ndarray, kind: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, kind, quality=90)
    return content.getvalue()


def crops(each: int, broken: int, seed: int = 0) -> Iterator[tuple[str, str, bytes]]:
    """Class, file name and content of each crop.

    Args:
        each: crops of each photograph; every fourth is a PNG, the others JPEG.
        broken: how many of the first class are cut off in the middle, or no image at all.
        seed: of the places and sizes of the crops.
    """
    generator = np.random.default_rng(seed)
    for label, (name, photograph) in enumerate(sorted(photographs().items())):
        for number in range(each):
            height, width = generator.integers(*SIDES, size=2, endpoint=True)
            top = generator.integers(0, photograph.shape[0] - height, endpoint=True)
            left = generator.integers(0, photograph.shape[1] - width, endpoint=True)
            crop = np.ascontiguousarray(photograph[top : top + height, left : left + width])
            kind = "PNG" if number % 4 == 3 else "JPEG"
            content = _encoded(crop, kind)
            if label == 0 and number < broken:
                content = content[: len(content) // 2] if number % 2 == 0 else b"no image"
            yield name, f"{number:04d}.{kind.lower()}", content


def write_folder(root: Path, *, each: int, broken: int) -> None:
    """root/train/<class>/<image>."""
    for name, file, content in crops(each, broken):
        write_atomically(root / "train" / name / file, content)


def write_shards(root: Path, *, each: int, broken: int, images: int = 64) -> None:
    """root/train/*.tar in WebDataset's form, with so many images in each shard."""
    entries = list(crops(each, broken))
    classes = sorted({name for name, _, _ in entries})
    (root / "train").mkdir(parents=True, exist_ok=True)
    for first in range(0, len(entries), images):
        with tarfile.open(root / "train" / f"crops-{first // images:06d}.tar", "w") as shard:
            for name, file, content in entries[first : first + images]:
                key, _, extension = file.partition(".")
                label = str(classes.index(name)).encode()
                for suffix, data in ((extension, content), ("cls", label)):
                    member = tarfile.TarInfo(f"{name}_{key}.{suffix}")
                    member.size = len(data)
                    shard.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--each", type=int, default=48, help="crops of each photograph")
    parser.add_argument("--broken", type=int, default=0, help="files that cannot be decoded")
    parser.add_argument("--shards", action="store_true", help="tar shards instead of folders")
    given = parser.parse_args()
    write = write_shards if given.shards else write_folder
    write(given.root, each=given.each, broken=given.broken)
    print(f"{given.root / 'train'}: {len(SKIMAGE) + len(SKLEARN)} classes x {given.each} crops")
