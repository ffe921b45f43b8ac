"""`make gpu` in its smallest form, on the CPU; and how it keeps, continues and refuses."""

import json

import pytest
import torch

from benchmarks import gpu_page
from benchmarks.gpu_material import SIZES, pictures
from benchmarks.gpu_page import UNFINISHED, main
from benchmarks.gpu_phases import PHASES, Phase, columns
from reference_training.runtime.errors import RunError


def test_the_smallest_form_measures_every_phase(tmp_path, capsys):
    command = ["--device", "cpu", "--out", str(tmp_path)]
    assert main(command) == 0
    page = (tmp_path / "page.md").read_text()
    assert "Nothing was measured" not in page
    found = {name: json.loads((tmp_path / f"{name}.json").read_text())["parts"] for name in PHASES}
    assert all(row["failures"] == row["errors"] == 0 for row in found["tests"].values())
    rows = found["corruptions"]
    assert len(rows) == 19 + 1
    assert all(row["largest difference"] == 0 < row["operations"] for row in rows.values())
    with_uem, without = found["training"].values()
    assert with_uem["GFLOP a pair planned"] > without["GFLOP a pair planned"]
    assert 0.5 < sum(value for key, value in with_uem.items() if "share" in key) <= 1
    (resumed,) = found["resuming"].values()
    assert resumed["bit-identical"]
    assert resumed["killed at"] < resumed["iterations"]
    assert all(row["images/s"] > 0 for row in found["evaluation"].values())

    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == [f"the page: {tmp_path / 'page.md'}"]


@pytest.fixture
def made_up(monkeypatch):
    """One phase of three parts, of which the second fails until it is mended."""
    ran, broken = [], [True]

    def part(name, done):
        ran.append(name)
        if name == "two" and broken:
            raise ValueError("no such thing")
        return {"earlier": len(done)}

    names = ("one", "two", "three")
    parts = {name: lambda done, name=name: part(name, done) for name in names}
    phase = Phase("Made up", lambda size, folder: parts, columns)
    monkeypatch.setattr(gpu_page, "PHASES", {"made": phase})
    return ran, broken


def test_a_failed_part_is_told_kept_and_run_again_on_demand(made_up, tmp_path):
    ran, broken = made_up
    command = ["--device", "cpu", "--out", str(tmp_path)]
    assert main(command) == 1
    assert main(command) == 1
    assert ran == ["one", "two", "three"]
    assert "**two**: ValueError: no such thing" in (tmp_path / "page.md").read_text()
    broken.clear()
    assert main([*command, "--retry"]) == 0
    assert ran == ["one", "two", "three", "two"]
    assert "no such thing" not in (tmp_path / "page.md").read_text()


def test_what_the_time_did_not_suffice_for_is_left_to_the_next_start(made_up, tmp_path):
    ran, broken = made_up
    broken.clear()
    command = ["--device", "cpu", "--out", str(tmp_path)]
    assert main([*command, "--seconds", "-1"]) == UNFINISHED
    assert ran == []
    assert main(command) == 0
    assert ran == ["one", "two", "three"]


def test_results_of_another_machine_are_not_mixed(made_up, tmp_path, monkeypatch):
    command = ["--device", "cpu", "--out", str(tmp_path)]
    main(command)
    monkeypatch.setattr(gpu_page, "versions", lambda: {"torch": "0"})
    with pytest.raises(RunError, match=r"made.json is of another versions.*--out"):
        main(command)


def test_a_phase_in_a_process_of_its_own(tmp_path):
    assert gpu_page.run_apart("environment", SIZES["cpu"], tmp_path, 60)
    assert (tmp_path / "environment.json").exists()


def test_pictures_are_the_same_everywhere():
    first = pictures(2, 8, 9)
    assert first.shape == (2, 3, 8, 9)
    assert torch.equal(first, pictures(2, 8, 9))
    assert first.float().std() > 20
