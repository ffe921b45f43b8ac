"""The compact form of a run's metrics: exact where it counts, rounded where it says so."""

import pytest

from reference_training.corruptions import CORRUPTIONS
from reference_training.evaluation import measurements
from reference_training.runtime.errors import RunError
from tests.reference_training import fabricated


def table(scale: float, clean: float | None) -> dict:
    """Another value in each set."""
    rows = {
        name: [scale * (5 * place + at + 1) for at in range(5)]
        for place, name in enumerate(CORRUPTIONS)
    }
    return {"clean": clean, "corruptions": rows}


def metrics() -> dict:
    """A network without uncertainty and one with, on 700 images."""
    accuracy = {"clean": 619 / 700, "corruptions": table(0, None)["corruptions"]}
    for place, name in enumerate(CORRUPTIONS):
        accuracy["corruptions"][name] = [(5 * place + at + 600) / 700 for at in range(5)]
    calibration = {
        "auroc": table(0.01, 0.5),
        "image_rank_correlation": table(-0.003, None),
        "variance": table(1, 1),
    }
    measured = {"uncertainty": table(1.23456789e-3, 1e-4), "calibration": calibration}
    content = fabricated.metrics(cross_entropy=(0.5,), ulfd=(0.5,))
    content["results"] = {
        "cross_entropy": {"0": accuracy | {"uncertainty": None}},
        "ulfd@beta=0.5,lambda=1.0": {"0": accuracy | measured},
    }
    return content | {"evaluation_images": 700, "versions": {"torch": "2"}}


def test_what_is_written_is_read(tmp_path):
    written = metrics()
    measurements.write(tmp_path / "part", written)
    found = measurements.read(tmp_path / "part")
    assert {**found, "results": None} == {**written, "results": None}
    assert list(found["results"]) == list(written["results"])
    for method, seeds in written["results"].items():
        for kept in ("clean", "corruptions"):
            assert found["results"][method]["0"][kept] == seeds["0"][kept]
    plain, measured = (found["results"][method]["0"] for method in written["results"])
    assert plain["uncertainty"] is None
    assert "calibration" not in plain
    expected = written["results"]["ulfd@beta=0.5,lambda=1.0"]["0"]
    theta = measured["uncertainty"]["corruptions"]
    for name, row in expected["uncertainty"]["corruptions"].items():
        assert theta[name] == pytest.approx(row, rel=5e-5)  # five significant digits
    assert set(measured["calibration"]) == {"auroc", "image_rank_correlation"}
    assert measured["calibration"]["image_rank_correlation"]["clean"] is None
    for measure in ("auroc", "image_rank_correlation"):
        for name, row in expected["calibration"][measure]["corruptions"].items():
            values = measured["calibration"][measure]["corruptions"][name]
            assert values == pytest.approx(row, abs=5.1e-3)  # two decimals
    measurements.write(tmp_path / "part", written, uncertainty=False)
    for seeds in measurements.read(tmp_path / "part")["results"].values():
        assert seeds["0"]["uncertainty"] is None


def test_nothing_and_damage_are_told_apart(tmp_path):
    assert measurements.read(tmp_path / "part") == {}
    measurements.write(tmp_path / "part", metrics())
    path = tmp_path / "part.csv"
    whole = path.read_text()
    for broken in (whole[:-20], whole.replace("snow 3", "snow 6"), ""):
        path.write_text(broken)
        with pytest.raises(RunError, match="is damaged"):
            measurements.read(tmp_path / "part")
