"""Files and checkpoints that survive whatever happens to the machine."""

import errno
import json
import random
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load

from reference_training.runtime import files
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import JsonLines, write_atomically, write_json
from reference_training.training import checkpoint
from reference_training.training.checkpoint import Checkpoint
from tests.reference_training.fabricated import write_checkpoint


def point(iteration):
    return Checkpoint(iteration, {"weight": torch.full((3,), float(iteration))}, {"note": "x"})


def test_round_trip_keeps_the_newest_two(tmp_path):
    assert checkpoint.read_latest(tmp_path) is None
    for iteration in (5, 10, 15):
        write_checkpoint(tmp_path, point(iteration))
    found = checkpoint.read_latest(tmp_path)
    assert (found.iteration, found.tensors["weight"][0], found.state) == (15, 15, {"note": "x"})
    assert checkpoint.iterations(tmp_path) == [10, 15]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "description", "not ours"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, damage):
    write_checkpoint(tmp_path, point(5))
    write_checkpoint(tmp_path, point(10))
    path = tmp_path / "00000010.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    {
        "flip": lambda: path.write_bytes(content),
        "cut": lambda: path.write_bytes(content[:20]),
        "remove": path.unlink,
        "description": lambda: path.with_suffix(".json").write_text("{"),
        "not ours": lambda: path.with_suffix(".json").write_text("[]"),
    }[damage]()
    found, complaints = checkpoint.read_newest_sound(tmp_path)
    assert found.iteration == 5
    assert len(complaints) == 1
    assert "00000010" in complaints[0]
    with pytest.raises(RunError, match=r"00000010.*(damaged|gone).*same command again"):
        checkpoint.read_latest(tmp_path)
    write_checkpoint(tmp_path, point(7), kept=3)  # the training comes here once more
    assert checkpoint.iterations(tmp_path) == [5, 7]


def test_without_a_sound_checkpoint_a_training_begins_anew(tmp_path):
    assert checkpoint.read_newest_sound(tmp_path) == (None, [])
    write_checkpoint(tmp_path, point(5))
    (tmp_path / "00000005.safetensors").write_bytes(b"")
    found, complaints = checkpoint.read_newest_sound(tmp_path)
    assert found is None
    assert len(complaints) == 1


def test_tensors_without_a_description_do_not_count(tmp_path):
    """A kill between the two writes leaves the earlier checkpoint in force."""
    write_checkpoint(tmp_path, point(5))
    (tmp_path / "00000010.safetensors").write_bytes(b"half")
    assert checkpoint.read_latest(tmp_path).iteration == 5


def test_random_states_come_back():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    draw()
    saved = json.loads(json.dumps(checkpoint.random_states()))
    first = draw()
    checkpoint.restore_random_states(saved)
    assert draw() == first


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    write_json(path, 1)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write .*value.json: No space left.*intact"):
        write_json(path, 2)
    with pytest.raises(RunError, match="No space left"):
        JsonLines(tmp_path / "log.jsonl").append(1)
    assert path.read_text() == "1\n"
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix == ".part"] == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*--out"):
        write_atomically(tmp_path / "file" / "below" / "x", b"")


def test_a_torn_line_is_left_out(tmp_path):
    lines = JsonLines(tmp_path / "log.jsonl")
    assert lines.read() == []
    for value in range(3):
        lines.append({"value": value})
    with lines.path.open("ab") as file:
        file.write(b'{"val')
    assert lines.read() == [{"value": 0}, {"value": 1}, {"value": 2}]
    lines.keep(2)
    lines.append({"value": 9})
    assert lines.read() == [{"value": 0}, {"value": 1}, {"value": 9}]
    lines.path.write_bytes(b"{\n1\n")
    with pytest.raises(RunError, match="damaged"):
        lines.read()


def test_packed_tensors_are_a_safetensors_file():
    wide = torch.arange(120.0).view(2, 3, 4, 5)
    tensors = {
        "order": wide.contiguous(memory_format=torch.channels_last),
        "half": wide.bfloat16(),
        "odd": torch.tensor([True, False, True]),
        "count": torch.tensor(2**40),
        "none": torch.empty(0, 3),
        "names 'ä'": wide.double().flatten()[1::7],
    }
    first = checkpoint.packed(tensors)
    found = load(bytes(first.numpy()))
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    again = checkpoint.packed(tensors | {"count": torch.tensor(3)}, first)
    assert again is first
    assert load(bytes(again.numpy()))["count"] == 3


def test_what_changes_while_it_is_written_is_not_in_the_checkpoint(tmp_path, monkeypatch):
    writer, begun, go = checkpoint.Writer(tmp_path), threading.Event(), threading.Event()
    write = checkpoint.write_atomically

    def slow(path, content):
        begun.set()
        assert go.wait(60)
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", slow)
    now = point(5)
    writer.begin(now)
    assert begun.wait(60)
    now.tensors["weight"].fill_(9)  # the training has gone on
    assert checkpoint.iterations(tmp_path) == []
    go.set()
    writer.finish()
    assert checkpoint.read_latest(tmp_path).tensors["weight"].tolist() == [5.0] * 3


def test_a_checkpoint_that_could_not_be_written_is_told_at_the_next(tmp_path, monkeypatch):
    writer = checkpoint.Writer(tmp_path)
    writer.begin(point(5))
    writer.finish()

    def full(path, content):
        raise RunError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", full)
        writer.begin(point(10))
        with pytest.raises(RunError, match="no space"):
            writer.begin(point(15))
    writer.finish()
    assert checkpoint.iterations(tmp_path) == [5]
    writer.begin(point(20))
    writer.finish()
    assert checkpoint.iterations(tmp_path) == [5, 20]
