"""The classes of ImageNet's validation images that lie in one folder, from the files beside them.

Kaggle's LOC_val_solution.csv names each image's class. The ILSVRC devkit has a number for each
image, in their order, and meta.mat with the class of each number.
"""

import csv
from collections.abc import Callable
from pathlib import Path

from reference_training.runtime.errors import RunError
from reference_training.runtime.files import reading

DEVKIT = Path("ILSVRC2012_devkit_t12", "data")
WHERE_TO_GET = (
    "put Kaggle's LOC_val_solution.csv, or the devkit's ILSVRC2012_validation_ground_truth.txt and "
    "meta.mat, beside the folder, or sort the images into class folders"
)


def _kaggle(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}


def _devkit(path: Path) -> dict[str, str]:
    from scipy.io import loadmat

    meta = path.with_name("meta.mat")
    if not meta.is_file():
        raise RunError(
            f"{path} has numbers, and {meta}, which says of which classes, does not exist; put the "
            "devkit's meta.mat there."
        )
    synsets = loadmat(meta, squeeze_me=True)["synsets"]
    classes = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
    return {
        f"ILSVRC2012_val_{image:08d}": classes[int(number)]
        for image, number in enumerate(path.read_text().split(), 1)
    }


TRUTHS: dict[str, Callable[[Path], dict[str, str]]] = {
    "LOC_val_solution.csv": _kaggle,
    "ILSVRC2012_validation_ground_truth.txt": _devkit,
}
"""A file's name, and what reads it to {image's name without its ending: class}."""


def ground_truth(root: Path) -> dict[str, str]:
    """{image's name without its ending: the name of its class}.

    Args:
        root: the folder of the images; the file is in it, beside it, or in the unpacked devkit.

    Raises:
        RunError: there is no such file, or it is damaged.
    """
    for place in (root, root.parent, root.parent / DEVKIT):
        for name, read in TRUTHS.items():
            if (place / name).is_file():
                with reading(place / name, "is no ground truth", "Get it again"):
                    return read(place / name)
    raise RunError(f"{root} holds images and no class folders: {WHERE_TO_GET}.")
