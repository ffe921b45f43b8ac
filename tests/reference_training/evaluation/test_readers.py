"""Reading the published layouts, whole and damaged."""

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from reference_training.corruptions import CORRUPTIONS, SEVERITIES
from reference_training.data.cifar_c import PublishedArrays
from reference_training.data.class_folders import ClassFolders
from reference_training.data.imagenet_c import ARCHIVES, PublishedFolders
from reference_training.data.photographs import ImageFolder, fingerprint
from reference_training.data.samples import InMemory
from reference_training.runtime.errors import RunError
from tests.reference_training.evaluation.material import CLASSES, EACH, IMAGES, LABELS

ALL = [("gaussian_noise", 1), ("frost", 5), ("saturate", 3)]


def test_the_five_tars_hold_every_corruption_once():
    assert sorted(sum(ARCHIVES.values(), ())) == sorted(CORRUPTIONS)


def test_published_images_are_read_as_they_are(published_folder):
    data = PublishedFolders(published_folder, len(CLASSES))
    data.check(ALL)
    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    samples = data.samples(("frost", 5))
    path = (
        published_folder / "weather/weather/frost/5" / CLASSES[1] / "ILSVRC2012_val_00000002.JPEG"
    )
    expected = np.asarray(Image.open(path))
    assert np.array_equal(samples.images[2].permute(1, 2, 0).numpy(), expected)
    assert samples.labels[2] == 1
    same = samples.degrade(samples.images[2][None], torch.tensor([2]))
    assert torch.equal(same[0], samples.images[2])


def test_only_1000_classes_of_224_pixels_are_normalised_by_alexnet(published_folder):
    data = PublishedFolders(published_folder, len(CLASSES))
    assert data.name == "ImageNet-C (3 classes, 224x224)"
    assert not data.is_imagenet


def test_only_imagenets_own_classes_are_normalised_by_alexnet(tmp_path):
    info = pytest.importorskip("timm.data").ImageNetInfo("imagenet-1k")
    for name in info.label_names():
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").touch()
    assert ClassFolders(tmp_path, 1000).is_imagenet
    assert not ClassFolders(tmp_path, 1000, "as_is").is_imagenet
    (tmp_path / "n01440764").rename(tmp_path / "n01440765")
    assert not ClassFolders(tmp_path, 1000).is_imagenet


def test_another_number_of_classes_is_refused(published_folder, clean_folder):
    with pytest.raises(RunError, match=r"has 3 class folders, but the network has 1000 outputs"):
        PublishedFolders(published_folder, 1000)
    with pytest.raises(RunError, match=r"val has 3 class folders.*4 outputs"):
        ClassFolders(clean_folder, 4)


def test_what_is_missing_is_named_with_its_tar(published_folder):
    data = PublishedFolders(published_folder, 3)
    with pytest.raises(
        RunError,
        match=r"no folder for fog, spatter.*weather.tar and extra.tar.*"
        r"https://zenodo.org/records/2235448",
    ):
        data.check([("fog", 1), ("frost", 1), ("spatter", 2)])
    shutil.rmtree(published_folder / "saturate" / "4")
    with pytest.raises(RunError, match=r"missing: .*saturate/4\. Get extra.tar"):
        data.check(ALL)


def test_a_missing_class_folder_is_named(published_folder):
    shutil.rmtree(published_folder / "saturate" / "2" / CLASSES[2])
    data = PublishedFolders(published_folder, 3)
    with pytest.raises(RunError, match=r"saturate/2 .*lacks n01484850"):
        data.check(ALL)
    (published_folder / "saturate" / "2" / CLASSES[2]).mkdir()
    (published_folder / "saturate" / "2" / "n99999999").mkdir()
    with pytest.raises(RunError, match=r"saturate/2 .*has n99999999 too"):
        data.check(ALL)


def test_an_empty_class_folder_and_missing_images_are_named(published_folder):
    data = PublishedFolders(published_folder, 3)
    folder = published_folder / "saturate" / "2" / CLASSES[1]
    first, second = sorted(folder.iterdir())
    first.unlink()
    with pytest.raises(RunError, match=r"5 images and .* 6; they differ in n01443537/ILSVRC"):
        data.samples(("saturate", 2))
    second.unlink()
    with pytest.raises(RunError, match=r"no image in the class folders n01443537 of .*saturate/2"):
        data.samples(("saturate", 2))


def test_tiny_imagenets_frost_has_foreign_classes_which_are_left_out(published_folder):
    """Zenodo's frost has 1000 classes, the other types 200."""
    for path in published_folder.rglob("*.JPEG"):
        Image.open(path).resize((64, 64)).save(path)
    for severity in SEVERITIES:
        folder = published_folder / "weather/weather/frost" / str(severity)
        shutil.copytree(folder / CLASSES[0], folder / "n00000001")  # sorts before the others
    data = PublishedFolders(published_folder, 3)
    data.check(ALL)
    assert data.name.startswith("Tiny-ImageNet-C")
    assert data.names == list(CLASSES)
    assert len(data.samples(("frost", 1)).images) == 6


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "size"])
def test_a_damaged_file_is_named(published_folder, damage):
    path = published_folder / "saturate" / "3" / CLASSES[1] / "ILSVRC2012_val_00000003.JPEG"
    content = path.read_bytes()
    if damage == "size":
        Image.open(path).resize((224, 200)).save(path)
    else:
        path.write_bytes({"truncated": content[:2000], "empty": b"", "text": b"no image"}[damage])
    images = PublishedFolders(published_folder, 3).samples(("saturate", 3)).images
    images[2]
    message = "224x200 pixels.*224x224" if damage == "size" else "cannot be read"
    with pytest.raises(RunError, match=rf"saturate/3/n01443537/ILSVRC2012_val_00000003.*{message}"):
        images[3]


def test_hidden_folders_are_no_classes_of_a_published_set(published_folder):
    for folder in published_folder.rglob("[1-5]"):
        (folder / ".ipynb_checkpoints").mkdir()
    data = PublishedFolders(published_folder, 3)
    data.check(ALL)
    assert data.names == list(CLASSES)


def test_the_same_corruption_twice_is_ambiguous(published_folder):
    shutil.copytree(published_folder / "saturate", published_folder / "extra" / "saturate")
    with pytest.raises(RunError, match=r"saturate is in .* more than once"):
        PublishedFolders(published_folder, 3)


def test_clean_images_must_be_those_of_the_corrupted_ones(published_folder, clean_folder, tmp_path):
    data = PublishedFolders(published_folder, 3, ClassFolders(clean_folder, 3))
    assert data.clean_sets == ("clean_resize256_center224", "clean_squash224")
    fewer = tmp_path / "fewer"
    shutil.copytree(clean_folder, fewer)
    next((fewer / CLASSES[0]).iterdir()).unlink()
    with pytest.raises(RunError, match=r"fewer \(5\) are not those of .*\(6\)"):
        PublishedFolders(published_folder, 3, ClassFolders(fewer, 3))


def test_the_clean_transforms(clean_folder):
    """Pillow by hand: 280x250 to 286x256 and its central 224x224; or squashed."""
    data = ClassFolders(clean_folder, 3)
    path = clean_folder / CLASSES[0] / "ILSVRC2012_val_00000001.JPEG"
    picture = Image.open(path)
    resized = picture.resize((286, 256), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((31, 16, 255, 240)))
    found = data.clean("clean_resize256_center224").images[1].permute(1, 2, 0).numpy()
    assert np.array_equal(found, expected)
    squashed = np.asarray(picture.resize((224, 224), Image.Resampling.BILINEAR))
    found = data.clean("clean_squash224").images[1].permute(1, 2, 0).numpy()
    assert np.array_equal(found, squashed)


def test_images_as_they_are(clean_folder):
    samples = ClassFolders(clean_folder, 3, "as_is").clean("clean")
    assert samples.images[0].shape == (3, 250, 280)


def test_grey_and_cmyk_files_become_rgb(clean_folder, tmp_path):
    root = tmp_path / "val"
    shutil.copytree(clean_folder, root)
    paths = sorted(root.rglob("*.JPEG"))
    Image.open(paths[0]).convert("L").save(paths[0])
    Image.open(paths[1]).convert("CMYK").save(paths[1])
    images = ClassFolders(root, 3).clean("clean_squash224").images
    assert images[0].shape == images[1].shape == (3, 224, 224)
    assert torch.equal(images[0][0], images[0][1])


def test_arrays_are_stacked_by_severity(arrays_folder):
    data = PublishedArrays(arrays_folder, 10)
    data.check([("fog", 1), ("pixelate", 5)])
    raw = np.load(arrays_folder / "fog.npy")
    samples = data.samples(("fog", 3))
    assert len(samples.images) == IMAGES
    assert np.array_equal(samples.images[7].permute(1, 2, 0).numpy(), raw[2 * IMAGES + 7])
    assert samples.labels.tolist() == LABELS.tolist()


def test_labels_for_other_networks_are_refused(arrays_folder):
    with pytest.raises(RunError, match=r"labels 0 to 9, but the network has 100 outputs"):
        PublishedArrays(arrays_folder, 100)


def save_labels(folder, values):
    np.save(folder / "labels.npy", values)


DAMAGES = {
    "shape": (lambda f: np.save(f / "fog.npy", np.zeros((99, 32, 32, 3), np.uint8)), "(99, 32"),
    "dtype": (lambda f: np.save(f / "fog.npy", np.zeros((100, 32, 32, 3))), "float64"),
    "pickle": (
        lambda f: np.save(f / "fog.npy", np.array([{"a": 1}], object), allow_pickle=True),
        "no array of numbers",
    ),
    "raw pickle": (
        lambda f: (f / "fog.npy").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR."),
        "no array of numbers",
    ),
    "cut off": (
        lambda f: (f / "fog.npy").write_bytes((f / "fog.npy").read_bytes()[:5000]),
        "cut off",
    ),
    "missing": (lambda f: (f / "fog.npy").unlink(), "missing: "),
    "labels missing": (lambda f: (f / "labels.npy").unlink(), "missing: "),
    "labels short": (lambda f: save_labels(f, np.arange(99) % 10), "5 severities"),
    "labels shuffled": (lambda f: save_labels(f, np.arange(100)[::-1] // 10), "other labels"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_arrays_are_named(arrays_folder, damage, monkeypatch):
    monkeypatch.chdir(arrays_folder)
    spoil, message = DAMAGES[damage]
    spoil(arrays_folder)
    with pytest.raises(RunError) as caught:
        PublishedArrays(arrays_folder, 10).check([("fog", 1)])
    name = "labels.npy" if "labels" in damage else "fog.npy"
    assert name in str(caught.value)
    assert message in str(caught.value)
    assert "zenodo.org" in str(caught.value)
    assert not (arrays_folder / "pwned").exists()


def test_every_class_has_its_images_in_the_same_order_everywhere(clean_folder):
    data = ClassFolders(clean_folder, 3)
    assert data.files == sorted(data.files)
    assert data.labels.bincount().tolist() == [EACH] * 3
    assert data.identity == ClassFolders(clean_folder, 3).identity


def equally_large(root, grey):
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for number in range(3):
            level = grey if name == CLASSES[0] else 120 + number
            Image.new("L", (40, 40), level).save(root / name / f"{number}.bmp")
    return root


def test_equally_large_files_of_the_same_names_are_other_data(tmp_path):
    """Formats without compression: names and sizes say nothing of the content."""
    old, new = equally_large(tmp_path / "old/val", 10), equally_large(tmp_path / "new/val", 240)
    assert ClassFolders(old, 3).identity != ClassFolders(new, 3).identity
    moved = shutil.copytree(old, tmp_path / "moved/val")
    assert ClassFolders(old, 3).identity == ClassFolders(moved, 3).identity
    before, path = ClassFolders(old, 3).mark, old / CLASSES[1] / "2.bmp"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert ClassFolders(old, 3).mark != before  # even where content is not looked at
    assert fingerprint(ImageFolder(old)) != fingerprint(ImageFolder(new))
    assert fingerprint(ImageFolder(old)) == fingerprint(ImageFolder(moved))


def test_a_published_set_is_marked_by_its_content(published_folder):
    path = sorted((published_folder / "saturate/3").rglob("*.JPEG"))[2]
    before = PublishedFolders(published_folder, 3)
    marks = [before.mark(("saturate", severity)) for severity in SEVERITIES]
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    changed = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(changed, changed))
    after = PublishedFolders(published_folder, 3)
    same = [after.mark(("saturate", severity)) for severity in SEVERITIES]
    assert [a == b for a, b in zip(marks, same, strict=True)] == [True, True, False, True, True]


def test_in_memory_images_are_the_test_images():
    from reference_training.data import load

    digits = load("digits")
    samples = InMemory(digits).clean("clean")
    assert samples.images is digits.test_images
    assert samples.labels is digits.test_labels
