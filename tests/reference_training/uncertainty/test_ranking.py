"""A folder's ranking: what is in it, and that a killed one continues."""

import json
import os
import shutil

import pytest

from reference_training.runtime.errors import RunError
from reference_training.runtime.image_files import open_rgb
from reference_training.uncertainty import ranking
from reference_training.uncertainty.meter import Meter, load_meter
from reference_training.uncertainty.ranking import rank


def test_every_image_is_ranked(run, photographs, tmp_path, capsys):
    meter, out = load_meter(run("ulfd")[0]), tmp_path / "made/scores.jsonl"
    rows = rank(meter, photographs, out)
    assert list(map(json.loads, out.read_text().splitlines())) == rows
    *read, broken = rows
    assert broken["file"] == "broken.png"
    assert "theta" not in broken
    assert "skipped 'broken.png'" in capsys.readouterr().err
    theta = [row["theta"] for row in read]
    assert theta == sorted(theta, reverse=True)
    assert len(set(theta)) == 12
    for row in read:
        image = open_rgb(photographs / row["file"])
        assert (row["width"], row["height"]) == image.size
        expected = meter.score(meter.view(image)[None])
        for name, (value,) in expected.items():
            # A batch of another size is summed in another order.
            assert row[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_a_killed_ranking_continues(run, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(ranking, "BATCH", 4)
    root = shutil.copytree(photographs, tmp_path / "copied")
    meter, out = load_meter(run("ulfd")[0]), tmp_path / "scores.jsonl"
    whole = rank(meter, root)
    score, calls = Meter.score, []

    def killed(self, images):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(self, images)

    monkeypatch.setattr(Meter, "score", killed)
    with pytest.raises(KeyboardInterrupt):
        rank(meter, root, out)
    assert rank(meter, root, out) == whole
    assert sum(calls[2:]) == 12 - calls[0]  # what was scored is not scored again

    calls = [0] * 2
    changed = root / "deep/3.png"
    os.utime(changed, ns=(0, 0))
    (root / "deep/4.png").unlink()
    assert len(rank(meter, root, out)) == 12
    assert calls[2:] == [1]


def test_rows_of_something_else_are_refused(run, photographs, tmp_path):
    out = tmp_path / "scores.jsonl"
    rank(load_meter(run("ulfd")[0]), photographs, out)
    before = out.read_bytes()
    with pytest.raises(RunError, match="of another network"):
        rank(load_meter(run("ulfd@uem.blocks=1")[0]), photographs, out)
    with pytest.raises(RunError, match="of other images"):
        rank(load_meter(run("ulfd")[0]), photographs / "deep", out)
    assert out.read_bytes() == before


def test_nothing_readable_is_an_error(run, tmp_path):
    meter, root = load_meter(run("ulfd")[0]), tmp_path / "empty"
    root.mkdir()
    with pytest.raises(RunError, match="there is no image below"):
        rank(meter, root)
    (root / "single.png").write_bytes(b"no image")
    with pytest.raises(RunError, match="none of the 1 images"):
        rank(meter, root)
