"""ImageNet's validation set in every layout in which people have it: the same images and labels."""

import io
import shutil
import tarfile

import numpy as np
import pytest
import torch
from scipy.io import savemat

from reference_training.data.class_folders import ClassFolders
from reference_training.data.photographs import open_photographs
from reference_training.runtime.errors import RunError
from tests.reference_training.evaluation.material import (
    CLASSES,
    EACH,
    photographs,
    write_class_folders,
)

TRUTH = "ILSVRC2012_validation_ground_truth.txt"


@pytest.fixture
def folders(tmp_path):
    root = tmp_path / "folders/val"
    write_class_folders(root, photographs(EACH * len(CLASSES), (40, 36)))
    # Names in another order than the classes, as ImageNet's.
    for path in sorted(root.rglob("*.JPEG"), reverse=True):
        number = int(path.stem[-8:])
        path.rename(path.with_name(f"ILSVRC2012_val_{1 + number // 2 + 3 * (number % 2):08d}.JPEG"))
    return root


@pytest.fixture
def flat(folders, tmp_path):
    root = tmp_path / "flat/val"
    root.mkdir(parents=True)
    for path in folders.rglob("*.JPEG"):
        shutil.copy(path, root)
    return root


def truth_of(folders) -> dict[str, str]:
    return {path.stem: path.parent.name for path in sorted(folders.rglob("*.JPEG"))}


def write_kaggle(folders, place):
    rows = [f"{name},{wnid} 1 2 3 4 {wnid} 5 6 7 8" for name, wnid in truth_of(folders).items()]
    text = "\n".join(["ImageId,PredictionString", *reversed(rows)])
    (place / "LOC_val_solution.csv").write_text(text)


def write_devkit(folders, place):
    """Numbers of the classes in an order of their own, as the devkit's."""
    place.mkdir(parents=True, exist_ok=True)
    kinds = [("ILSVRC2012_ID", int), ("WNID", object), ("num_children", int)]
    numbered = [*reversed(CLASSES), "n00000001"]
    synsets = [(at, wnid, at > 3) for at, wnid in enumerate(numbered, 1)]
    savemat(place / "meta.mat", {"synsets": np.array(synsets, dtype=kinds)})
    wnids = dict(sorted(truth_of(folders).items())).values()
    (place / TRUTH).write_text("".join(f"{1 + numbered.index(wnid)}\n" for wnid in wnids))


def same(one, other):
    assert one.classes == other.classes == CLASSES
    assert torch.equal(one.labels, other.labels)
    for at in range(len(one.labels)):
        assert one.read(at) == other.read(at)
        assert one.stat(at)[0] == other.stat(at)[0] == len(one.read(at))


@pytest.mark.parametrize("place", ["", "..", "../ILSVRC2012_devkit_t12/data"])
@pytest.mark.parametrize("write", [write_kaggle, write_devkit])
def test_one_folder_with_a_ground_truth_is_class_folders(folders, flat, write, place):
    (flat / place).mkdir(parents=True, exist_ok=True)
    write(folders, (flat / place).resolve())
    same(open_photographs(folders), open_photographs(flat))
    clean = ClassFolders(flat, 3).clean("clean_squash224")
    expected = ClassFolders(folders, 3).clean("clean_squash224")
    assert torch.equal(clean.images[3], expected.images[3])


def test_a_ground_truth_that_is_none(folders, flat):
    with pytest.raises(RunError, match=r"no class folders: put Kaggle's LOC_val_solution.csv"):
        open_photographs(flat)
    write_devkit(folders, flat)
    (flat / "meta.mat").unlink()
    with pytest.raises(RunError, match=r"meta.mat, which says of which classes, does not exist"):
        open_photographs(flat)
    (flat / "meta.mat").write_bytes(b"no matlab")
    with pytest.raises(RunError, match=r"is no ground truth .*Get it again"):
        open_photographs(flat)
    write_devkit(folders, flat)
    (flat / TRUTH).write_text("1\n" * 5)  # of six
    with pytest.raises(RunError, match=r"does not name ILSVRC2012_val_00000006\.JPEG"):
        open_photographs(flat)


def test_imagenets_own_tars_are_read_as_they_are(folders, tmp_path):
    root = tmp_path / "train"
    root.mkdir()
    for name in CLASSES:
        with tarfile.open(root / f"{name}.tar", "w") as archive:
            for path in sorted((folders / name).iterdir(), reverse=True):
                archive.add(path, path.name)
    same(open_photographs(folders), open_photographs(root))
    with tarfile.open(root / f"{CLASSES[2]}.tar", "w"):
        pass
    with pytest.raises(RunError, match=rf"no image in .*{CLASSES[2]}.tar"):
        open_photographs(root)
    for path in root.iterdir():
        path.unlink()
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as archive:
        member = tarfile.TarInfo("n01440764.tar")
        archive.addfile(member, io.BytesIO())
    with pytest.raises(RunError, match=r"ILSVRC2012_img_train.tar holds tars: extract it"):
        open_photographs(root)


def test_shards_can_be_evaluated(folders, tmp_path):
    """By their labels; which classes those are is not said, so AlexNet's errors are not used."""
    root, numbers = tmp_path / "shards", dict(zip(CLASSES, range(3), strict=True))
    root.mkdir()
    with tarfile.open(root / "val-0.tar", "w") as shard:
        for path in sorted(folders.rglob("*.JPEG")):
            label = str(numbers[path.parent.name]).encode()
            for name, content in ((".jpg", path.read_bytes()), (".cls", label)):
                member = tarfile.TarInfo(path.stem + name)
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    data, expected = ClassFolders(root, 3), ClassFolders(folders, 3)
    assert torch.equal(data.labels, expected.labels)
    images, wanted = (one.clean("clean_squash224").images for one in (data, expected))
    assert all(torch.equal(images[at], wanted[at]) for at in range(6))
    assert not data.is_imagenet
    assert data.mark == ClassFolders(root, 3).mark


def test_parquet_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "train-00000-of-00294.parquet").touch()
    with pytest.raises(RunError, match=r"read by position; write the bytes .*Image\(decode=False"):
        open_photographs(tmp_path)
