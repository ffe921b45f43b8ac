"""A folder's ranking: what is in it, and what is no image."""

import pytest

from reference_training.runtime.errors import RunError
from reference_training.runtime.image_files import open_rgb
from reference_training.uncertainty import ranking
from reference_training.uncertainty.meter import load_meter
from reference_training.uncertainty.ranking import rank


def test_every_image_is_ranked(run, photographs, capsys):
    meter = load_meter(run("ulfd")[0])
    *read, broken = rank(meter, photographs)
    assert broken["file"] == "broken.png"
    assert "theta" not in broken
    assert "skipped 'broken.png'" in capsys.readouterr().err
    theta = [row["theta"] for row in read]
    assert theta == sorted(theta, reverse=True)
    assert len(set(theta)) == 12
    for row in read:
        image = open_rgb(photographs / row["file"])
        expected = meter.score(meter.view(image)[None])
        for name, (value,) in expected.items():
            # A batch of another size is summed in another order.
            assert row[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_batches_change_nothing(run, photographs, monkeypatch):
    meter = load_meter(run("ulfd")[0])
    whole = rank(meter, photographs)
    monkeypatch.setattr(ranking, "BATCH", 4)
    for row, expected in zip(rank(meter, photographs), whole, strict=True):
        assert row["file"] == expected["file"]
        assert row.get("theta", 0) == pytest.approx(expected.get("theta", 0), rel=1e-5)


def test_nothing_readable_is_an_error(run, tmp_path):
    meter, root = load_meter(run("ulfd")[0]), tmp_path / "empty"
    root.mkdir()
    with pytest.raises(RunError, match="there is no image below"):
        rank(meter, root)
    (root / "single.png").write_bytes(b"no image")
    with pytest.raises(RunError, match="none of the 1 images"):
        rank(meter, root)
