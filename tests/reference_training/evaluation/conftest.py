"""Small folders in the layouts of the published sets, of real photographs."""

from pathlib import Path

import numpy as np
import pytest

from reference_training.corruptions import SEVERITIES
from tests.reference_training.evaluation.material import (
    CLASSES,
    CORRUPTIONS,
    EACH,
    IMAGES,
    LABELS,
    photographs,
    write_class_folders,
)


@pytest.fixture(scope="session")
def clean_folder(tmp_path_factory) -> Path:
    """Clean photographs of 280x250 in class folders."""
    root = tmp_path_factory.mktemp("clean") / "val"
    write_class_folders(root, photographs(EACH * len(CLASSES), (280, 250)))
    return root


@pytest.fixture
def published_folder(tmp_path) -> Path:
    """Three corruptions, nested as some tars leave them; each severity is darker."""
    root = tmp_path / "ImageNet-C"
    pictures = photographs(EACH * len(CLASSES), (224, 224))
    for corruption, parent in zip(CORRUPTIONS, ("noise", "weather/weather", ""), strict=True):
        for severity in SEVERITIES:
            folder = root / parent / corruption / str(severity)
            write_class_folders(folder, pictures, 1 - 0.15 * severity)
    return root


@pytest.fixture
def arrays_folder(tmp_path) -> Path:
    """Two corruptions as CIFAR-10-C has them, of random images."""
    root = tmp_path / "CIFAR-10-C"
    root.mkdir()
    generator = np.random.default_rng(3)
    for name in ("fog", "pixelate"):
        shape = (len(SEVERITIES) * IMAGES, 32, 32, 3)
        np.save(root / f"{name}.npy", generator.integers(0, 256, shape, dtype=np.uint8))
    np.save(root / "labels.npy", np.tile(LABELS, len(SEVERITIES)))
    return root
