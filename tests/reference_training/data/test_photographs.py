"""Photographs in files: layouts, decoding, and pairs that depend on nothing but (seed, i, t)."""

import io
import json
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from reference_training.corruptions import CorruptionOptions, corrupt
from reference_training.corruptions.random import Random
from reference_training.data import photograph_pairs, second_images
from reference_training.data.photograph_pairs import PhotographPairs
from reference_training.data.photographs import (
    ImageFolder,
    Shards,
    fingerprint,
    open_photographs,
)
from reference_training.data.sampling import cycle, pair_seeds, samples_at
from reference_training.data.second_images import CORRUPTED, SECOND_IMAGES, Corruptions
from reference_training.data.views import (
    MEAN,
    STD,
    VIEWS,
    Views,
    cropped,
    decode,
    random_resized_crop,
    resized,
)
from reference_training.runtime.clock import Clock
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import JsonLines
from reference_training.runtime.ranks import ALONE, World
from scripts.make_photograph_crops import crops, write_folder, write_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    write_folder(root, each=6, broken=2)
    return root / "train"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    write_shards(root, each=6, broken=2, images=10)
    return root / "train"


def source(photographs, tmp_path, **options):
    defaults = {
        "batch_size": 12,
        "seed": 3,
        "second": "corruption",
        "views": Views(40, 32, Corruptions("cycle", CorruptionOptions(frost="procedural"))),
        "channels_last": True,
        "workers": 0,
        "most_unreadable": 20,
        "unreadable": JsonLines(tmp_path / "unreadable.jsonl"),
        "world": ALONE,
        "clock": Clock(torch.device("cpu")),
    }
    return PhotographPairs(photographs, **(defaults | options))


def test_folders_are_those_of_torchvision(folder):
    ours, theirs = ImageFolder(folder), torchvision.datasets.ImageFolder(str(folder))
    assert list(ours.classes) == theirs.classes
    names = [str((folder / ours.name(at)).resolve()) for at in range(len(ours.labels))]
    assert list(zip(names, ours.labels.tolist(), strict=True)) == theirs.samples
    content = ours.read(30)
    assert torch.equal(decode(content), torch.from_numpy(np.array(theirs[30][0])))


def test_shards_hold_the_same_photographs(folder, shards):
    one, other = open_photographs(folder), open_photographs(shards)
    assert isinstance(one, ImageFolder)
    assert isinstance(other, Shards)
    assert len(list(shards.glob("*.tar"))) == 5
    assert one.labels.tolist() == other.labels.tolist()
    assert all(one.read(at) == other.read(at) for at in range(len(one.labels)))
    assert other.name(0) == "crops-000000.tar/astronaut_0000.jpeg"
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(ImageFolder(folder))


def tar(path, files, mode="w"):
    with tarfile.open(path, mode) as shard:
        for name, content in files.items() if isinstance(files, dict) else files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))


def test_layouts_that_are_none(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        open_photographs(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"neither class folders nor \*.tar"):
        open_photographs(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(RunError, match=r"no image in the class folders cat of"):
        open_photographs(tmp_path)
    tar(tmp_path / "x.tar", {"x.jpg": b"", "x.cls": b"1"})
    with pytest.raises(RunError, match=r"class folders and \*.tar shards.*leave one of them"):
        open_photographs(tmp_path)
    (tmp_path / "cat").rmdir()
    for files, message in (
        ({"a/x.jpg": b"", "a/y.cls": b"1"}, "a/x.jpg has no a/x.cls"),
        ({"x.jpg": b"", "x.cls": b"one"}, "no plain tar file"),
        ({"x.jpg": b"", "x.cls": b"-1"}, "negative labels"),
        ({"x.txt": b""}, "hold no images"),
    ):
        tar(tmp_path / "x.tar", files)
        with pytest.raises(RunError, match=message):
            open_photographs(tmp_path)
    tar(tmp_path / "x.tar", {"x.jpg": b"", "x.cls": b"1"}, "w:gz")
    with pytest.raises(RunError, match=r"no plain tar file.*uncompressed"):
        open_photographs(tmp_path)


def link(path, name):
    with tarfile.open(path, "w") as shard:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        shard.addfile(member)


def test_a_shard_in_which_an_image_would_be_lost_is_refused(tmp_path):
    path = tmp_path / "x.tar"
    for files, message in (
        ([("b.v2.jpg", b""), ("b.v2.cls", b"1")], r"b\.v2\.jpg cannot be taken: .*first dot"),
        ([("c.jpg", b""), ("c.cls", b"1"), ("c.jpg", b"")], r"c\.jpg cannot be taken: .*twice"),
        ([("c.jpg", b""), ("c.png", b""), ("c.cls", b"1")], r"c\.png cannot be taken: .*twice"),
        ([("c.jpg", b""), ("c.cls", b"1"), ("c.cls", b"2")], r"c\.cls cannot be taken: .*twice"),
        ([("c.jpg", b""), ("c.cls", b"1" * 99)], r"c\.cls cannot be taken: .*at most 20 bytes"),
    ):
        tar(path, files)
        with pytest.raises(RunError, match=message):
            open_photographs(tmp_path)
    for name in ("a.jpg", "a.cls"):
        link(path, name)
        with pytest.raises(RunError, match=rf"{name} cannot be taken: it is a link"):
            open_photographs(tmp_path)
    tar(path, [("._a.jpg", b"macOS"), ("a.jpg", b"1"), ("a.cls", b"0")])
    assert [open_photographs(tmp_path).read(0)] == [b"1"]


def test_resizing_is_pillows():
    images = [
        torch.from_numpy(np.array(Image.open(io.BytesIO(content)).convert("RGB")))
        for _, _, content in crops(2, 0)
    ]
    images += [images[0].clone(), images[3].flip(0)]  # sizes that occur twice
    ours = resized(images, 48)
    for image, square in zip(images, ours, strict=True):
        pillow = Image.fromarray(image.numpy()).resize((48, 48), Image.Resampling.BILINEAR)
        difference = square.permute(1, 2, 0).int() - torch.from_numpy(np.array(pillow)).int()
        assert difference.abs().max() <= 1
        assert torch.equal(resized([image], 48)[0], square)  # whatever stands beside it


def test_cropping():
    images = torch.arange(2 * 3 * 6 * 5).view(2, 3, 6, 5)
    found = cropped(images, torch.tensor([0, 3]), torch.tensor([2, 1]), 3)
    assert torch.equal(found[0], images[0, :, 0:3, 2:5])
    assert torch.equal(found[1], images[1, :, 3:6, 1:4])


def test_a_pair_is_the_published_recipe(folder, tmp_path):
    """Resize, crop, corruption, flip and normalisation, made again for one image at a time."""
    photographs = ImageFolder(folder)
    pairs = source(photographs, tmp_path)
    batch = next(iter(pairs.batches(5, 6)))
    positions = torch.arange(60, 72)
    drawn = samples_at(positions, seed=3, total=len(photographs.labels)).tolist()
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    compared = flipped = 0
    for place, sample in enumerate(drawn):
        try:
            image = decode(photographs.read(sample))
        except (ValueError, OSError):
            continue  # replaced: another test
        seed = pair_seeds(3, torch.tensor(5), torch.tensor([sample]))
        draws = Random(seed)
        top, left = draws.integers(0, 9, 2)[0].tolist()
        flip = draws.uniform(1)[0, 0] < 0.5
        clean = resized([image], 40)[:, :, top : top + 32, left : left + 32]
        names, severities = cycle(draws, positions[place : place + 1], 3)
        degraded = corrupt(clean, names, severities, seeds=seed, frost="procedural")
        for found, expected in ((batch.clean, clean), (batch.degraded, degraded)):
            expected = (expected[0].flip(-1) if flip else expected[0]) / 255
            torch.testing.assert_close(found[place], (expected - mean) / std)
        assert batch.labels[place] == photographs.labels[sample]
        compared, flipped = compared + 1, flipped + int(flip)
    assert compared >= 10
    assert 0 < flipped < compared


def test_pairs_do_not_depend_on_who_makes_them(folder, shards, tmp_path):
    photographs = ImageFolder(folder)
    whole = list(source(photographs, tmp_path).batches(0, 4))
    later = list(source(photographs, tmp_path, workers=2).batches(2, 4))
    packed = list(source(Shards(shards), tmp_path).batches(2, 4))
    for batch, *others in zip(whole[2:], later, packed, strict=True):
        for other in others:
            assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))
    cpu = torch.device("cpu")
    parts = [source(photographs, tmp_path, world=Rank(rank, 2, cpu)) for rank in range(2)]
    for at, halves in enumerate(zip(*(part.batches(0, 4) for part in parts), strict=True)):
        for a, *b in zip(whole[at], *halves, strict=True):
            assert torch.equal(a, torch.cat(b))


class Rank(World):
    """A rank that has nobody to talk to."""

    def on_main(self, function):
        return function()


def test_unreadable_files_are_replaced_named_and_counted(folder, tmp_path):
    photographs = ImageFolder(folder)
    pairs = source(photographs, tmp_path)
    batches = list(pairs.batches(0, 8))
    broken = {0, 1}
    for iteration, batch in enumerate(batches):
        assert batch.clean.isfinite().all()
        drawn = pairs.describe(iteration)["samples"]
        kept = [place for place, sample in enumerate(drawn) if sample not in broken]
        assert torch.equal(batch.labels[kept], photographs.labels[[drawn[at] for at in kept]])
    pairs.check()
    lines = [json.loads(line) for line in pairs.unreadable.path.read_text().splitlines()]
    assert [line["file"] for line in lines] == ["astronaut/0000.jpeg", "astronaut/0001.jpeg"]
    assert "truncated" in lines[0]["error"]
    again = source(photographs, tmp_path)  # a continued run knows them
    list(again.batches(0, 8))
    again.check()
    assert len(again.unreadable.read()) == 2
    strict = source(photographs, tmp_path, most_unreadable=1)
    with pytest.raises(RunError, match=r"2 files cannot be decoded.*--most-unreadable"):
        strict.check()


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_is_no_data_ends_with_a_message(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(photograph_pairs, "ATTEMPTS", 5)
    for number in range(3):
        path = tmp_path / "train" / "class" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"html")
    pairs = source(ImageFolder(tmp_path / "train"), tmp_path, workers=workers)
    with pytest.raises(RunError, match=r"^5 files in a row cannot be decoded.*class/\d.jpg"):
        next(iter(pairs.batches(0, 1)))


def test_grey_and_palette_images_are_rgb():
    for mode in ("L", "P", "CMYK", "RGBA", "1"):
        content = io.BytesIO()
        Image.new(mode, (7, 5)).save(content, "TIFF")
        assert decode(content.getvalue()).shape == (5, 7, 3)


def test_batches_made_ahead_are_the_same(folder, tmp_path):
    """As on a GPU, where a stream comes to the thread."""
    plain, other = (source(ImageFolder(folder), tmp_path) for _ in range(2))
    expected = list(plain.batches(0, 4))
    loader = torch.utils.data.DataLoader(other.slots, batch_size=None, sampler=range(4))
    made = other._made(0, 4, loader)
    found = list(photograph_pairs.ahead(made, torch.device("cpu")))
    assert len(found) == 4
    for one, (batch, _) in zip(expected, found, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, batch, strict=True))
    assert {file for _, files in found for file, _ in files} == set(plain._new)


def test_one_batch_is_made_ahead_in_another_thread_and_an_error_comes_in_its_turn():
    threads, second = [], threading.Event()

    def made():
        for number in range(3):
            threads.append(threading.get_ident())
            if number == 1:
                second.set()
            yield (), [(str(number), "")]
        raise RunError("the last")

    batches = photograph_pairs.ahead(made(), torch.device("cpu"))
    next(batches)
    assert second.wait(60)  # made before it is asked for
    assert [files[0][0] for _, files in (next(batches), next(batches))] == ["1", "2"]
    with pytest.raises(RunError, match="the last"):
        next(batches)
    assert threads[0] == threading.get_ident() != threads[1]


def test_resized_crops_are_cut_from_whole_photographs(folder, tmp_path):
    corruptions = Corruptions("cycle", CorruptionOptions(frost="procedural"))
    views = Views(40, 32, corruptions, "resized_crop")
    photographs = open_photographs(folder)
    (batch,) = source(photographs, tmp_path, views=views, second="clean").batches(0, 1)
    samples = samples_at(torch.arange(12), seed=3, total=len(photographs.labels))
    mean, std = (torch.tensor(levels).view(3, 1, 1) for levels in (MEAN, STD))
    whole = 0
    for image, sample, seed in zip(
        batch.clean, samples, pair_seeds(3, torch.tensor(0), samples), strict=True
    ):
        try:
            original = decode(photographs.read(int(sample)))
        except Exception:  # a broken one, which another replaced
            continue
        levels = ((image * std + mean) * 255).round().to(torch.uint8)
        part = random_resized_crop(original, seed, 32).movedim(-1, 0)
        assert torch.equal(levels, part) or torch.equal(levels.flip(-1), part)
        whole += 1
    assert whole > 6


def test_a_corrupted_crop_is_corrupted_before_it_is_cropped(folder, tmp_path, monkeypatch):
    def gradient(images, draws):  # tells where in the square a pixel was
        assert images.shape[-2:] == (40, 40)
        return torch.arange(1600).view(1, 1, 40, 40).expand(len(images), 3, 40, 40) / 8

    monkeypatch.setitem(SECOND_IMAGES, "gradient", gradient)
    corruptions = Corruptions("cycle", CorruptionOptions(frost="procedural"))
    views = Views(40, 32, corruptions, "corrupted_crop")
    photographs = open_photographs(folder)
    pairs = source(photographs, tmp_path, views=views, second="gradient")
    plain = source(photographs, tmp_path, views=replace(views, kind="crop"), second="clean")
    (batch,), (cropped_alone,) = pairs.batches(0, 1), plain.batches(0, 1)
    assert torch.equal(batch.clean, cropped_alone.clean)  # the same crops, whatever comes first
    mean, std = (torch.tensor(levels).view(3, 1, 1) for levels in (MEAN, STD))
    places = ((batch.degraded * std + mean) * 255 * 8).round()[:, 0]
    corners = set()
    for square in places:
        square = square if square[0, 0] < square[0, 1] else square.flip(-1)
        assert torch.equal(square.diff(dim=0), torch.full((31, 32), 40.0))
        assert torch.equal(square.diff(dim=1), torch.ones(32, 31))
        corners.add(int(square[0, 0]))
    assert len(corners) > 3


@pytest.mark.parametrize("kind", VIEWS)
@pytest.mark.parametrize("second", CORRUPTED)
def test_jpegs_are_encoded_by_the_workers_and_are_the_same(
    folder, tmp_path, monkeypatch, kind, second
):
    """With and without; what makes the other corruptions, on a GPU say, is asked for no JPEG."""
    options = CorruptionOptions(frost="procedural")
    views = Views(40, 32, Corruptions("independent", options), kind)
    asked, encoded = [], []

    def watched(images, names, *others, **given):
        asked.extend(names)
        return corrupt(images, names, *others, **given)

    def alone(images, draws):
        encoded.append(len(draws.encoded))
        return make(images, replace(draws, encoded=None))

    def batches():
        return list(source(ImageFolder(folder), tmp_path, views=views, second=second).batches(0, 4))

    make = SECOND_IMAGES[second]
    monkeypatch.setattr(second_images, "corrupt", watched)
    found = batches()
    assert "jpeg_compression" not in asked
    monkeypatch.setitem(SECOND_IMAGES, second, alone)
    for one, other in zip(found, batches(), strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    assert 0 < sum(encoded) == asked.count("jpeg_compression")
