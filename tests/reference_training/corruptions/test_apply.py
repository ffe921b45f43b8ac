"""The command that makes a folder's -C version: its files, after kills too, and who reads them."""

import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from reference_training.corruptions import corrupt
from reference_training.corruptions.__main__ import main
from reference_training.data.class_folders import ClassFolders
from reference_training.data.imagenet_c import PublishedFolders
from reference_training.evaluation import CorruptionOptions, OnTheFly
from reference_training.runtime.errors import RunError

FROST = ["--frost", "procedural"]
AGAIN = "Run the same `corruptions apply` into"


@pytest.fixture
def photos(tmp_path):
    """Six images of different sizes in two classes."""
    rng = np.random.default_rng(3)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            levels = rng.integers(0, 256, (33 + number, 47, 3), dtype=np.uint8)
            Image.fromarray(levels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def apply(photos, out, *options):
    return main(["apply", str(photos), str(out), *FROST, "--jobs", "1", *options])


def written(out):
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.suffix in (".png", ".JPEG", ".part")
    }


def done(out):
    return sum(name.endswith(".JPEG") for _, _, names in os.walk(out) for name in names)


def expected(photos, kind, severity, file, seed=0):
    """By the rule as the documentation states it."""
    key = int.from_bytes(hashlib.sha256(file.encode()).digest()[:8], "big") >> 1
    pixels = np.asarray(Image.open(photos / file))
    return corrupt(pixels, kind, severity, seeds=(seed << 32) + key, frost="procedural")


def test_layout_and_pixels(photos, tmp_path, capsys):
    kinds = ("fog", "gaussian_noise")
    assert apply(photos, tmp_path / "c", "--kinds", *kinds, "--severities", "2", "5") == 0
    assert "24 files written" in capsys.readouterr().out
    files = written(tmp_path / "c")
    assert len(files) == 24
    for kind in kinds:
        for severity in (2, 5):
            for file in ("cat/0.png", "dog/2.png"):
                image = Image.open(io.BytesIO(files[f"{kind}/{severity}/{file}"]))
                assert np.array_equal(np.asarray(image), expected(photos, kind, severity, file))
    # More kinds come to it; what is there stays, and an image's seed is its own.
    (photos / "cat" / "0.png").unlink()
    assert apply(photos, tmp_path / "c", "--kinds", "fog", "contrast", "--severities", "2") == 0
    assert "5 files written" in capsys.readouterr().out
    assert files.items() <= written(tmp_path / "c").items()


def test_killed_three_times_it_ends_with_the_same_files(photos, tmp_path):
    out, moments = tmp_path / "c", random.Random(4)
    kinds = ("gaussian_noise", "glass_blur", "motion_blur", "frost", "pixelate", "spatter")
    command = [sys.executable, "-m", "reference_training.corruptions", "apply", photos, out]
    command += ["--jpeg85", "--jobs", "2", *FROST, "--kinds", *kinds]
    kills = 0
    for _ in range(3):
        before = done(out)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        more = moments.randint(5, 50)
        while process.poll() is None and done(out) < before + more:
            time.sleep(0.005)
        kills += process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert kills == 3
    assert done(out) < 6 * 5 * len(kinds)
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    files = written(out)
    assert len(files) == 6 * 5 * len(kinds)
    for name, content in files.items():
        kind, severity, file = name.split("/", 2)
        pixels = expected(photos, kind, int(severity), file.replace(".JPEG", ".png"))
        with io.BytesIO() as jpeg:
            Image.fromarray(pixels).save(jpeg, "JPEG", quality=85, optimize=True)
            assert content == jpeg.getvalue(), name


def test_the_evaluation_reads_what_it_would_make_on_the_fly(photos, tmp_path):
    (photos / ".ipynb_checkpoints").mkdir()  # which is no class, and moves no image's position
    shutil.copy(photos / "cat" / "0.png", photos / ".ipynb_checkpoints" / "0.png")
    out, kinds = tmp_path / "c", ("gaussian_noise", "snow", "pixelate")
    options = ["--jpeg85", "--preparation", "imagenet", "--seeds", "position", "--seed", "3"]
    assert apply(photos, out, "--kinds", *kinds, *options) == 0
    stored = PublishedFolders(out, 2, ClassFolders(photos, 2))
    assert stored.name.startswith("c (2 classes, 224x224, procedural: generated stand-in")
    with pytest.raises(RunError, match=r"made with --preparation imagenet.* prepared as as_is"):
        PublishedFolders(out, 2, ClassFolders(photos, 2, "as_is"))
    others = photos.parent / "others"
    shutil.copytree(photos, others)
    (others / "cat" / "0.png").rename(others / "cat" / "9.png")
    with pytest.raises(RunError, match=r"not the images .* differ in cat/0, cat/9. Give those"):
        PublishedFolders(out, 2, ClassFolders(others, 2))
    (others / "cat").rename(others / "elephant")
    with pytest.raises(RunError, match="not the images"):
        PublishedFolders(out, 2, ClassFolders(others, 2))
    made = OnTheFly(
        ClassFolders(photos, 2), CorruptionOptions(frost="procedural"), seed=3, jpeg85=True
    )
    sets = [(kind, severity) for kind in kinds for severity in (1, 5)]
    stored.check(sets)
    for one in sets:
        read, fly = stored.samples(one), made.samples(one)
        assert torch.equal(read.labels, fly.labels)
        clean = torch.stack([fly.images[at] for at in range(6)])
        degraded = fly.degrade(clean, torch.arange(6))
        assert degraded.shape == (6, 3, 224, 224)
        assert torch.equal(torch.stack([read.images[at] for at in range(6)]), degraded), one
    shutil.rmtree(out / "snow" / "3" / "cat")
    with pytest.raises(RunError, match=rf"snow/3 .* lacks cat. {AGAIN}"):
        stored.check(sets)
    shutil.rmtree(out / "snow" / "3")
    with pytest.raises(RunError, match=rf"missing: .*/snow/3. {AGAIN}"):
        stored.check(sets)
    shutil.rmtree(out / "snow")
    with pytest.raises(RunError, match=rf"no folder for snow. {AGAIN}"):
        PublishedFolders(out, 2).check(sets)
    (out / "gaussian_noise" / "1" / "cat" / "0.JPEG").write_bytes(b"")
    with pytest.raises(RunError, match=rf"cat/0.JPEG cannot be read .*{AGAIN}"):
        PublishedFolders(out, 2)
    with pytest.raises(RunError, match=rf"2 class folders, .* 9 outputs. {AGAIN}"):
        PublishedFolders(out, 9)
    shutil.rmtree(out / "gaussian_noise" / "1")  # of the corruption that tells the classes
    with pytest.raises(RunError, match=rf"missing: .*/gaussian_noise/1. {AGAIN}"):
        PublishedFolders(out, 2)


def test_unequal_sizes_are_made_equal_by_a_preparation(photos, tmp_path):
    assert apply(photos, tmp_path / "c", "--kinds", "contrast") == 0
    remedies = {
        r"Run `corruptions apply --preparation imagenet`": PublishedFolders(
            tmp_path / "c", 2
        ).samples(("contrast", 1)),
        r"Give --preparation imagenet": ClassFolders(photos, 2, "as_is").clean("clean"),
    }
    for remedy, samples in remedies.items():
        with pytest.raises(RunError, match=rf"47x34 pixels, .* must have 47x33\. {remedy}"):
            samples.images[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kinds", "fogg"], "--kinds: 'fogg' is unknown; did you mean 'fog'"),
        (["--severities", "6"], "--severities: expected 1, 2, 3, 4 or 5, got 6"),
        (["--format", "gif"], "--format is 'gif'; use one of png, jpeg85"),
        (["--jpeg85", "--format", "png"], "--jpeg85 and --format png exclude each other"),
        (["--preparation", "crop"], "--preparation is 'crop'; use one of as_is, imagenet"),
        (["--seeds", "name"], "--seeds is 'name'; use one of path, position"),
        (["--jobs", "0"], "--jobs is 0, but must be at least 1"),
        (["--seed", str(2**31)], "--seed: expected"),
        (["--parameters", "cifar"], "--parameters: 'cifar' is unknown"),
    ],
)
def test_messages(photos, tmp_path, capsys, options, message):
    assert apply(photos, tmp_path / "c", *options) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_folders_that_do_not_fit_are_refused(photos, tmp_path, capsys):
    assert apply(photos / "absent", tmp_path / "c") == 1
    assert "is no folder" in capsys.readouterr().err
    assert apply(photos, photos / "c") == 1
    assert "lies in the images' own folder" in capsys.readouterr().err
    splits = tmp_path / "splits"
    for split in ("train", "val"):
        shutil.copytree(photos, splits / split)
    assert apply(splits, tmp_path / "c") == 1
    assert f"did you mean {splits / 'train'} or {splits / 'val'}?" in capsys.readouterr().err
    shutil.copy(photos / "cat" / "0.png", splits)  # images of no class, some in folders
    assert apply(splits, tmp_path / "c") == 0
    some = ["--kinds", "contrast", "--severities", "1"]
    assert apply(photos, tmp_path / "c", *some) == 0
    assert apply(photos, tmp_path / "c", *some, "--seed", "1") == 1
    assert "was made with another choice of seed" in capsys.readouterr().err
    (photos / "cat" / "0.png").write_bytes(b"no image")
    (photos / "dog" / "9.png").write_bytes((photos / "dog" / "1.png").read_bytes()[:99])
    assert apply(photos, tmp_path / "d", *some) == 1
    said = capsys.readouterr().err
    assert "2 of 7 images were left out" in said
    assert "cat/0.png cannot be read" in said
    assert "dog/9.png cannot be read" in said
    assert len(list((tmp_path / "d").rglob("*.png"))) == 5
    Image.new("RGB", (40, 40)).save(photos / "cat" / "1.jpg")
    assert apply(photos, tmp_path / "e", *some) == 1
    assert "more than one image named cat/1" in capsys.readouterr().err


def test_other_images_of_the_same_names_are_refused(photos, tmp_path, capsys):
    some = ["--kinds", "contrast", "--severities", "1"]
    (photos / "cat" / "note.gif").write_bytes(b"")
    (photos / "dog" / "2.png").write_bytes(b"no image")
    assert apply(photos, tmp_path / "c", *some) == 1
    Image.new("RGB", (40, 40)).save(photos / "dog" / "2.png")  # mended: nothing was made of it
    (photos / "dog" / "new.png").write_bytes((photos / "cat" / "0.png").read_bytes())
    damaged = tmp_path / "c/contrast/1/cat/1.png"
    sound = damaged.read_bytes()
    for remains in (b"", sound[:-9], sound[:1], bytes(len(sound))):  # cut off, or never written
        damaged.write_bytes(remains)
        assert apply(photos, tmp_path / "c", *some) == 0
        assert damaged.read_bytes() == sound
        told = capsys.readouterr()
        assert "anew (1 in all): contrast/1/cat/1.png\n" in told.out
        assert "1 .gif file (note.gif)" in told.err
    before = written(tmp_path / "c")
    Image.new("RGB", (40, 40)).save(photos / "cat" / "1.png")
    assert apply(photos, tmp_path / "c", "--kinds", "fog", "--severities", "2") == 1
    assert "was made of other images named cat/1.png" in capsys.readouterr().err
    assert written(tmp_path / "c") == before
