"""Photographs in class folders: every layout's labels and pixels, the cache, what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reference_training.data import folders, load
from reference_training.runtime.errors import RunError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ULFD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def save(path: Path, level: int, size: tuple[int, int] = (40, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 0, 255 - level)).save(path)


def splits(root: Path, test: str = "val", classes: tuple[str, ...] = ("cats", "dogs")) -> Path:
    for label, name in enumerate(classes):
        for number in range(3):
            save(root / "train" / name / f"{number}.png", 100 * label + number)
        save(root / test / name / "0.png", 100 * label + 50)
    return root


def test_class_folders_give_colours_and_labels(tmp_path):
    found = load("folder", splits(tmp_path / "photos"), 32)
    assert found.train_images.shape == (6, 3, 32, 32)
    assert found.train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert found.train_images[3, :, 5, 7].tolist() == [100, 0, 155]
    assert found.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.test_images[:, 0, 0, 0].tolist() == [50, 150]
    assert found.test_labels.tolist() == [0, 1]
    assert found.classes == 2
    assert found.flips


def test_without_test_images_a_fifth_of_each_class_is_held_out(tmp_path):
    for name, count, start in (("a", 11, 0), ("b", 5, 100)):
        for number in range(count):
            save(tmp_path / "photos" / name / f"{number:02}.png", start + number)
    found = load("folder", tmp_path / "photos", 32)
    assert found.test_images[:, 0, 0, 0].tolist() == [4, 9, 104]
    assert found.test_labels.tolist() == [0, 0, 1]
    levels = {*found.train_images[:, 0, 0, 0].tolist()}
    assert levels == {*range(11), *range(100, 105)} - {4, 9, 104}


def test_tiny_imagenets_list_says_the_labels(tmp_path, monkeypatch):
    known = folders.PHOTOGRAPHS["tiny-imagenet"]
    monkeypatch.setitem(folders.PHOTOGRAPHS, "tiny-imagenet", replace(known, classes=2))
    root = tmp_path / "data" / "tiny-imagenet-200"
    for name, level in (("n01", 10), ("n02", 20)):
        save(root / "train" / name / "images" / "x.png", level)
    for number, level in enumerate((60, 61, 62)):
        save(root / "val" / "images" / f"val_{number}.png", level)
    lines = [
        "val_0.png\tn02\t0\t0\t1\t1",
        "val_1.png\tn01\t0\t0\t1\t1",
        "val_2.png\tn02\t0\t0\t1\t1",
    ]
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines))
    found = load("tiny-imagenet", tmp_path / "data", 64)
    assert found.test_labels.tolist() == [1, 0, 1]
    assert found.test_images[:, 0, 0, 0].tolist() == [60, 61, 62]
    assert found.train_images.shape == (2, 3, 64, 64)
    (root / "val" / "val_annotations.txt").write_text("val_0.png\tn09\t0\n")
    with pytest.raises(RunError, match=r"line 1: .*n09"):
        load("tiny-imagenet", tmp_path / "data", 64)


def test_cifar10_in_class_folders_keeps_its_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for name in map(str, range(10)):
        for part in ("train", "test"):
            (tmp_path / "cifar" / part / name).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / "cifar" / part / name / "0.png")
    found = load("cifar10", tmp_path / "cifar")
    assert torch.equal(found.test_images[9].permute(1, 2, 0), torch.from_numpy(pixels))
    assert found.classes == 10


def test_an_image_is_cropped_in_its_middle_and_stands_upright(tmp_path):
    root = splits(tmp_path / "photos")
    pixels = np.zeros((40, 120, 3), np.uint8)
    pixels[:, 40:80] = 200
    Image.fromarray(pixels).save(root / "val" / "cats" / "0.png")
    exif = Image.Exif()
    exif[0x0112] = 3  # held upside down
    half = np.zeros((40, 40, 3), np.uint8)
    half[:20] = 200
    (root / "val" / "dogs" / "0.png").unlink()
    Image.fromarray(half).save(root / "val" / "dogs" / "0.jpg", exif=exif, quality=100)
    found = load("folder", root, 40).test_images
    assert (found[0] == 200).all()
    assert found[1, 0, 5, 5] < 10
    assert found[1, 0, 35, 5] > 190


def test_decoded_once_and_again_after_a_change(tmp_path, monkeypatch, cache):
    root = splits(tmp_path / "photos")
    load("folder", root, 32)
    kept = {path.name for path in cache.iterdir()}
    assert len(kept) == 2

    def refuse(*arguments):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patched:
        patched.setattr(folders, "_square", refuse)
        load("folder", root, 32)
    save(root / "val" / "cats" / "0.png", 77, size=(41, 40))
    assert load("folder", root, 32).test_images[0, 0, 0, 0] == 77
    assert {path.name for path in cache.iterdir()} > kept


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch, cache):
    with pytest.raises(RunError, match="--data-root"):
        load("folder")
    with pytest.raises(RunError, match="leave --side 64 out"):
        load("digits", None, 64)
    with pytest.raises(RunError, match="at least 32"):
        load("folder", tmp_path, 16)
    root = splits(tmp_path / "photos")
    with pytest.raises(RunError, match="has 2 classes, but Imagenette"):
        load("imagenette", root, 64)
    save(root / "val" / "birds" / "0.png", 1)
    with pytest.raises(RunError, match="in one of them alone: birds"):
        load("folder", root, 32)
    only = tmp_path / "only"
    save(only / "train" / "a" / "0.png", 1)
    with pytest.raises(RunError, match="none of val, test"):
        load("folder", only, 32)
    (only / "train").rename(only / "a")
    with pytest.raises(RunError, match="has 1 class folders"):
        load("folder", only, 32)
    few = tmp_path / "few"
    for name, count in (("a", 5), ("b", 4)):
        for number in range(count):
            save(few / name / f"{number}.png", 1)
    with pytest.raises(RunError, match=r"b in .* fewer images"):
        load("folder", few, 32)
    broken = splits(tmp_path / "broken")
    (broken / "train" / "cats" / "1.png").write_bytes(b"none")
    (broken / "train" / "dogs" / "2.png").write_bytes(b"none")
    with pytest.raises(RunError, match=r"2 of 6 images .* cats/1.png .* dogs/2.png"):
        load("folder", broken, 32)
    assert not any(path.suffix != ".npy" for path in cache.iterdir())
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda place: type("U", (), {"free": 9})())
    with pytest.raises(RunError, match="ULFD_CACHE"):
        load("folder", splits(tmp_path / "others"), 32)
