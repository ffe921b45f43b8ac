"""Folders of finished runs: their names and pictures, and what is said of other folders."""

import json

import pytest

from reference_training import report
from reference_training.reporting import finished, pages
from reference_training.reporting.finished import read_runs
from tests.reference_training.fabricated import RUN, full, write_run

PNG = finished.PNG + b"not decoded here"


def test_runs_with_the_same_name_are_told_apart(tmp_path):
    folders = [write_run(tmp_path / name / "digits", full()) for name in ("a", "b")]
    assert [run.name for run in read_runs(folders)] == ["a/digits", "b/digits"]


def test_the_sheet_is_found(first, undrawn):
    (first / "figures").mkdir()
    sheet = first / "figures" / "corruptions.png"
    sheet.write_bytes(PNG)
    assert read_runs([first])[0].sheet.png == PNG
    assert pages.page_of_runs(read_runs([first])).count("<img") == 1 + 2  # the others are drawn
    sheet.write_bytes(b"<script>")
    assert read_runs([first])[0].sheet is None


def damage(folder, change):
    content = json.loads((folder / "metrics.json").read_text())
    change(content)
    (folder / "metrics.json").write_text(json.dumps(content))


def _drop_corruption(content):
    del content["results"]["ulfd"]["0"]["corruptions"]["fog"]


def _percent(content):
    content["results"]["ulfd"]["0"]["corruptions"]["fog"][2] = 71.0


def _not_a_number(content):
    content["results"]["ulfd"]["0"]["clean"] = float("nan")


def _drop_method(content):
    del content["results"]["ulfd"]


def _short_uncertainty(content):
    content["results"]["ulfd"]["0"]["uncertainty"]["corruptions"]["snow"] = [0.1]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_drop_corruption, "'fog'"),
        (_percent, "accuracy of ulfd is 71.0; divide percentages by 100"),
        (_not_a_number, "accuracy of ulfd is nan"),
        (_drop_method, "'ulfd'"),
        (_short_uncertainty, "uncertainty of ulfd is missing"),
        (lambda content: content.update(results=[]), "list indices"),
        (lambda content: content.update(methods=[]), "no method"),
        (lambda content: content.pop("seeds"), "'seeds'"),
    ],
)
def test_damaged_numbers_are_explained(first, change, why, tmp_path, capsys):
    damage(first, change)
    out = tmp_path / "page.html"
    assert report.main([str(first), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {first} does not hold what a run leaves")
    assert why in error
    assert "Delete metrics.json and give the run's command again" in error
    assert not out.exists()


def test_what_is_no_finished_run_is_explained(first, tmp_path, capsys, undrawn):
    unfinished, evaluation = tmp_path / "unfinished", tmp_path / "evaluation"
    for folder, name in ((unfinished, "run.json"), (evaluation, "result.json")):
        folder.mkdir()
        (folder / name).write_text(json.dumps(RUN))
    (tmp_path / "empty").mkdir()
    cut = write_run(tmp_path / "cut", full())
    (cut / "metrics.json").write_text('{"dataset": ')
    lone = write_run(tmp_path / "lone", full())
    (lone / "run.json").unlink()
    for arguments, why in (
        ([unfinished], f"not finished; continue it with: {RUN['command']}"),
        ([evaluation], "it has no metrics.json; give the folders that `python -m"),
        ([tmp_path / "empty"], "empty is no folder of a finished run"),
        ([tmp_path / "absent"], "give the folders that"),
        ([first / "metrics.json"], "metrics.json is no folder of a finished run"),
        ([tmp_path], f"give {cut} {lone} {first}."),
        ([cut], "metrics.json is damaged"),
        ([lone], "run.json: it says how the run was made"),
        ([first, first], "is named twice"),
        ([first, "--out", str(tmp_path)], f"cannot write {tmp_path}"),
    ):
        assert report.main(list(map(str, arguments))) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert why in error, error
        assert "Traceback" not in error
