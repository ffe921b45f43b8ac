"""Photographs resized once: what is trained on stays the same, and a kill costs a shard at most."""

import pytest
import torch

from reference_training.data import prepare as module
from reference_training.data.photograph_pairs import PhotographPairs
from reference_training.data.photographs import ImageFolder, Shards, open_photographs
from reference_training.data.prepare import Preparation, main, prepare
from reference_training.data.second_images import Corruptions
from reference_training.data.views import Views, decode, resized
from reference_training.runtime.clock import Clock
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import JsonLines
from reference_training.runtime.ranks import ALONE
from scripts.make_photograph_crops import write_folder

SIDE = 40


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    root = tmp_path_factory.mktemp("crops")
    write_folder(root, each=3, broken=2)
    return root


@pytest.fixture(scope="module")
def lossless(crops, tmp_path_factory):
    out = tmp_path_factory.mktemp("lossless")
    assert prepare(Preparation(crops, out, SIDE, per_shard=5, jobs=1)) == 2
    return out


def batch(root, tmp_path):
    pairs = PhotographPairs(
        open_photographs(root / "train"),
        batch_size=24,
        seed=3,
        second="corruption",
        views=Views(SIDE, 32, Corruptions("cycle")),
        channels_last=True,
        workers=0,
        most_unreadable=20,
        unreadable=JsonLines(tmp_path / "unreadable.jsonl"),
        world=ALONE,
        clock=Clock(torch.device("cpu")),
    )
    return next(pairs.batches(2, 3))


def test_lossless_shards_train_to_the_bit_as_the_photographs(crops, lossless, tmp_path):
    found = open_photographs(lossless / "train")
    assert isinstance(found, Shards)
    assert len(found.paths) == 5
    assert found.name(7) == "00001.tar/00000007.png"
    for theirs, ours in zip(batch(crops, tmp_path), batch(lossless, tmp_path), strict=True):
        assert torch.equal(theirs, ours)


def test_an_interrupted_one_goes_on_and_ends_with_the_same_bytes(
    crops, lossless, tmp_path, monkeypatch
):
    given = Preparation(crops, tmp_path, SIDE, per_shard=5, jobs=0)
    write, written = module.write_atomically, []

    def full(path, content):
        if len(written) == 2:
            raise RunError("no space")
        written.append(path.name)
        write(path, content)

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(RunError, match="no space"):
        prepare(given)
    with pytest.raises(RunError, match="does not exist"):  # nobody trains on a part of the images
        open_photographs(tmp_path / "train")
    monkeypatch.setattr(
        module, "write_atomically", lambda *one: (written.append(one[0].name), write(*one))
    )
    prepare(given)
    assert written == [f"{number:05d}.tar" for number in range(5)]
    for path in (lossless / "train").iterdir():
        assert path.read_bytes() == (tmp_path / "train" / path.name).read_bytes()
    assert prepare(given) == 0
    assert len(written) == 5


def test_jpeg_loses_little(crops, tmp_path):
    prepare(Preparation(crops, tmp_path, SIDE, quality=95, jobs=0))
    one, other = ImageFolder(crops / "train"), open_photographs(tmp_path / "train")
    small = resized([decode(one.read(20))], SIDE)[0].movedim(0, -1).int()
    away = (decode(other.read(20)).int() - small).abs()
    assert 0 < away.float().mean() < 3


def test_what_was_made_otherwise_is_not_mixed(crops, lossless, tmp_path):
    with pytest.raises(RunError, match="another side, quality; give the same"):
        prepare(Preparation(crops, lossless, 32, quality=90, per_shard=5))
    (tmp_path / "train").mkdir()
    with pytest.raises(RunError, match="not of this command"):
        prepare(Preparation(crops, tmp_path))
    with pytest.raises(RunError, match="--quality is 0"):
        prepare(Preparation(crops, tmp_path, quality=0))


def test_a_file_that_cannot_be_read_ends_it(crops, tmp_path, monkeypatch):
    def gone(self, sample):
        raise OSError("Input/output error")

    photographs = open_photographs(crops / "train")
    monkeypatch.setattr(module, "open_photographs", lambda root: photographs)
    monkeypatch.setattr(module, "fingerprint", lambda given: "")
    monkeypatch.setattr(ImageFolder, "read", gone)
    with pytest.raises(RunError, match=r"astronaut/0000\.jpeg cannot be read: Input/output"):
        prepare(Preparation(crops, tmp_path / "out", jobs=0))


def test_the_command_says_how_to_train_on_it(crops, lossless, capsys):
    given = [str(crops), str(lossless), "--side", str(SIDE), "--per-shard", "5"]
    assert main(given) == 0
    assert f"for --data-root {lossless} --resize {SIDE}" in capsys.readouterr().out
    assert main([str(crops / "nowhere"), str(lossless)]) == 1
