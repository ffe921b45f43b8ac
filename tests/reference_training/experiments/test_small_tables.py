"""The whole paper at the smallest size: every table and figure, each network trained once."""

import json
import os
import sys
from pathlib import Path

import pytest

from reference_training.config import PaperTables
from reference_training.experiments import stages
from reference_training.experiments.small_tables import listing, runs_of, select_experiments
from reference_training.methods.trainings import method_of
from reference_training.paper.experiments import EXPERIMENTS, ROWS
from reference_training.run import main, parse
from reference_training.runtime.errors import RunError

SMOKE = "--experiment all --dataset digits --budget smoke".split()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("paper") / "digits"
    assert main([*SMOKE, "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_table_and_figure_is_made(whole, name):
    page = (whole / name / "page.html").read_text()
    assert EXPERIMENTS[name].title.split(":")[0] in page
    if EXPERIMENTS[name].columns:
        assert "Frost overlays: procedural: generated stand-in, not ImageNet-C" in page
        made = json.loads((whole / name / "table.json").read_text())
        assert len(made["rows"]) == len(EXPERIMENTS[name].rows)
        ours = [index for index, title in enumerate(made["header"]) if title[-1] in "↑↓"]
        assert all(float(row[at].split(" ± ")[0]) >= 0 for row in made["rows"] for at in ours)
    if EXPERIMENTS[name].figure:
        assert list((whole / name).glob("*.png"))
        assert json.loads((whole / name / "figure.json").read_text())


def test_what_two_tables_need_is_trained_once_and_never_again(whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")}
    assert main([*SMOKE[:1], "table5", *SMOKE[2:], "--out", str(whole)]) == 0
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")} == before
    assert main([*SMOKE, "--out", str(whole), "--list"]) == 0
    shown = capsys.readouterr().out
    tables = [name for name in ROWS if name.partition("/")[0] in EXPERIMENTS]
    assert all(name in shown for name in tables)
    assert "iterations to do" not in shown


def test_the_list_says_what_is_left(tmp_path):
    request = PaperTables("all", "digits", "laptop", out=tmp_path)
    assert "0 of 5 seeds trained, 1500 iterations to do" in listing(request)


def test_the_reader_of_the_list_may_leave(tmp_path, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    arguments = "--list --dataset digits --out".split()
    with open(write, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert main([*arguments, str(tmp_path)]) == 0
        print("not even the rest of the buffer complains", flush=True)


def test_each_backbone_has_its_own_network():
    request = PaperTables("table1", "digits", "smoke")
    first, second = runs_of(request, select_experiments("table1")).values()
    assert second.network.blocks == first.network.blocks + 1
    assert first.folder != second.folder
    assert {one.name for one in stages.trainings_of(first)} >= {"vanilla", "i_revnet", "qualnet"}


def test_one_row_alone():
    (experiment,) = select_experiments("table6a/0.01").values()
    assert [method_of(row) for row in experiment.rows] == ["ulfd@lambda=0.01"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--experiment table7 --dataset digits", "table1"),
        ("--experiment table1/nobody --dataset digits", "table1/ulfd"),
        ("--experiment table1 --dataset dragons", "digits"),
        ("--experiment table1 --dataset digits --budget huge", "smoke"),
        ("--experiment table7 --dataset imagenet", "table1"),
    ],
)
def test_mistakes_name_what_there_is(arguments, message, capsys):
    assert main(arguments.split()) == 1
    assert message in capsys.readouterr().err


def test_a_row_is_of_imagenet_unless_a_dataset_is_named():
    assert parse(["--experiment", "table1/ulfd"]).crop == 224
    assert isinstance(parse("--experiment table1/ulfd --dataset digits".split()), PaperTables)
    assert isinstance(parse("--experiment table5".split()), PaperTables)
    runs = parse("--experiment table1 --dataset imagenet --plan".split())
    assert runs[0].experiment == "stages/i_revnet"
    assert [run.arch for run in runs].count("resnext101_32x8d") == 4


def test_unknown_experiments_raise():
    with pytest.raises(RunError, match="--list"):
        select_experiments("figure9")
