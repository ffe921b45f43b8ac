"""A page about several runs: its tables from fabricated numbers, its choices, and its errors."""

import itertools
import json
import re

import pytest

from reference_training import report
from reference_training.reporting import across, finished, pages, plots
from reference_training.reporting.bars import Bar, Bars
from reference_training.reporting.blocks import Paragraph
from reference_training.reporting.charts import Chooser, Curves
from reference_training.reporting.figures import Curve
from reference_training.reporting.finished import read_runs
from reference_training.reporting.paper_columns import paper_doubts
from tests.reference_training.fabricated import RUN, full, metrics, write_run

PNG = finished.PNG + b"not decoded here"


def column(table, name):
    return [row[table.header.index(name)] for row in table.rows]


def apart(blocks):
    """What is said of differences that are not computed."""
    paragraphs = (block.text for block in blocks if isinstance(block, Paragraph))
    return [text for text in paragraphs if "are not computed" in text]


@pytest.fixture
def first(tmp_path):
    return write_run(tmp_path / "one", full())


@pytest.fixture
def second(tmp_path):
    """The first's test images and methods; a third seed, and ULFD two points better."""
    seen = {"cross_entropy": (0.6, 0.6, 0.6), "ulfd": (0.735, 0.745, 0.8), "mine": (0.9,)}
    config = {"frost": "procedural", "recipe": {"iterations": 20}, "out": "elsewhere"}
    return write_run(tmp_path / "two", metrics(**seen), config=config)


@pytest.fixture
def other(tmp_path):
    """Another dataset."""
    content = metrics(vanilla=(0.5,), ulfd=(0.6,)) | {"dataset": "clothes"}
    return write_run(tmp_path / "three", content, dataset=RUN["dataset"] | {"sha256": "77"})


def test_all_methods_of_all_runs_stand_in_one_table(first, second):
    table = across.run_table(read_runs([first, second]))
    assert column(table, "Run") == ["one"] * 4 + ["two"] * 3
    assert column(table, "Seeds") == ["2"] * 4 + ["3", "3", "1"]
    assert column(table, "Seen ↑")[3:6] == ["72.0 ± 0.7", "60.0 ± 0.0", "76.0 ± 3.5"]
    assert column(table, "Mean corruption error ↓")[3] == "28.0 ± 0.7"
    mce = column(table, "mCE (vanilla = 100) ↓")
    assert mce[:2] == ["100.0 ± 0.0", "58.3 ± 11.8"]
    assert mce[4:] == ["–"] * 3  # the second run has no vanilla network
    assert any(note.startswith("two has no normalised mCE") for note in table.notes)
    against = column(table, "Seen − that of CE ↑")
    assert against[1:4] == ["–", "+10.00 ± 0.00 ▲", "+12.00 ± 0.50 ▲"]
    assert against[6] == "+30.00"
    assert column(table, "Paper: Seen ↑")[3:] == ["63.44", "58.43", "63.44", "–"]
    assert "Data" not in table.header


def test_the_same_test_images_are_subtracted_by_seed(first, second):
    assert apart(across.comparison_blocks(read_runs([first, second]))) == []
    table = across.difference_table(read_runs([first, second]))
    assert table.header == ("Method", "Run", "Seeds", "Clean ↑", "Seen ↑", "Unseen ↑")
    zero = "0.00 ± 0.00"
    assert table.rows == (
        ("CE on clean + degraded", "two", "2", zero, zero, zero),
        ("+ uncertainty (ULFD)", "two", "2", zero, "+2.00 ± 0.00 ▲", zero),
    )


def test_other_test_images_are_not_subtracted_and_the_page_says_so(first, other, tmp_path):
    runs = read_runs([first, other])
    blocks = across.comparison_blocks(runs)
    (said,) = apart(blocks)
    assert "one: 100 test images of toy; three: 100 test images of clothes." in said
    assert not [b for b in blocks if getattr(b, "caption", "").startswith("Difference")]
    assert column(across.run_table(runs), "Data") == ["toy"] * 4 + ["clothes"] * 2
    # The same name and number of images are not enough.
    changed = write_run(tmp_path / "changed", full(), dataset=RUN["dataset"] | {"sha256": "beef"})
    (said,) = apart(across.comparison_blocks(read_runs([first, changed])))
    assert "SHA-256 5a…" in said
    assert "SHA-256 beef…" in said


def test_only_settings_that_differ_and_matter_are_listed(first, second):
    table = across.settings_table(read_runs([first, second]))
    assert table.header == ("Run", "recipe.iterations")
    assert table.rows == (("one", "10"), ("two", "20"))
    runs = read_runs([first])
    assert across.settings_table([*runs, *runs]) is None


def test_runs_with_the_same_name_are_told_apart(tmp_path):
    folders = [write_run(tmp_path / name / "digits", full()) for name in ("a", "b")]
    assert [run.name for run in read_runs(folders)] == ["a/digits", "b/digits"]


def test_pictures_are_found_with_their_dark_twins_and_shown_once(first, second):
    for folder in (first, second):
        (folder / "figures").mkdir()
        for name in ("corruptions", "corruptions-dark", "accuracy", "false"):
            content = b"<script>" if name == "false" else PNG + name.encode()
            (folder / "figures" / f"{name}.png").write_bytes(content)
    (picture,) = read_runs([first])[0].pictures
    assert (picture.light, picture.dark) == (PNG + b"corruptions", PNG + b"corruptions-dark")
    page = pages.page_of_runs(read_runs([first, second]))
    assert page.count("<img") == 1
    assert "The picture is the same as in one." in page
    (second / "figures" / "corruptions-dark.png").unlink()
    (picture,) = read_runs([second])[0].pictures
    assert picture.dark == picture.light


def many():
    """Twelve methods; among those that the paper has not, the later the better."""
    names = ["m0", "m1", "ulfd", "m2", "m3", "m4", "m5", "vanilla", "m6", "m7", "m8"]
    return metrics(**{name: (0.3 + index / 50,) for index, name in enumerate(names)})


def test_of_many_methods_eight_are_shown_and_the_others_named():
    data = many()
    blocks = plots.plots(data, plots.styles(data))
    (chooser,) = (block for block in blocks if isinstance(block, Chooser))
    shown = {label for label, _, shown in chooser.methods if shown}
    best = {f"m{number}" for number in range(3, 9)}
    assert shown == best | {"Vanilla (clean only)", "+ uncertainty (ULFD)"}
    assert "show 8 of 11 methods" in chooser.markdown()
    assert "Left out, and in the tables: m0; m1; m2." in chooser.markdown()
    curves = next(block for block in blocks if isinstance(block, Curves))
    html = curves.html()
    assert html.count("<g ") == 2 * 11
    assert html.count('<g class="off"') == 2 * 3
    bars = [block for block in blocks if isinstance(block, Bars)]
    assert [len(block.panels) for block in bars] == [15, 4]
    assert sum(block.html().count('<li class="off"') for block in bars) == 19 * 3
    few = full()
    (chooser,) = (b for b in plots.plots(few, plots.styles(few)) if isinstance(b, Chooser))
    assert chooser.markdown() == ""


def test_a_method_looks_the_same_in_every_run():
    one, two = metrics(b=(0.5,), ulfd=(0.5,)), metrics(c=(0.5,), b=(0.5,), ulfd=(0.5,))
    numbers = plots.styles(one, two)
    assert len(set(numbers.values())) == len(numbers)
    assert numbers["ulfd"] == plots.styles(two)["ulfd"] == 3


def test_a_bar_is_as_long_as_its_value():
    html = Bars("t", "c", {"fog": [Bar("<m>", 3, 63.44, 0.31), Bar("n", 4, 5.0, None)]}).html()
    assert "--value:63.44;--spread:0.31" in html
    assert "<span>&lt;m&gt;</span><b>63.4 ± 0.3</b>" in html
    assert "--value:5.00;--spread:0.00" in html
    assert "<b>5.0</b>" in html


def test_curves_are_drawn_to_scale():
    curve = Curve("a", 0, [100, 80, 60, 40, 20, 0], [10] * 6)
    html = Curves("p", "c", "%", {"t": [curve]}, limits=(0, 100)).html()
    points = re.search(r'class="line" d="M([^"]*)"', html)[1].split("L")
    xs, ys = zip(*(map(float, point.split()) for point in points), strict=True)
    steps = [b - a for a, b in itertools.pairwise(xs)]
    assert max(steps) - min(steps) < 0.1 < min(steps)
    # The limits are the first and the last line of the grid: 270 units high between margins.
    grid = [float(y) for y in re.findall(r"M38 ([\d.]+)H", html)]
    assert (min(grid), max(grid)) == (8, 278)
    assert ys == pytest.approx([8, 62, 116, 170, 224, 278], abs=0.1)
    # Error bars end at what is possible.
    spreads = re.search(r'class="spread" d="M[\d.]+ ([\d.]+)V([\d.]+)', html)
    assert [float(end) for end in spreads.groups()] == pytest.approx([35, 8], abs=0.1)


def test_doubts_of_the_papers_numbers_are_said():
    doubts = paper_doubts(["vanilla", "ulfd"])
    assert any(doubt.startswith("Table 1, Vanilla: HQ 76.82 does not fit") for doubt in doubts)
    assert not any("67.1" in doubt for doubt in doubts)  # that is of the other network
    assert paper_doubts(["mine"]) == []


def test_the_command_writes_one_page(first, second, other, tmp_path, capsys):
    out = tmp_path / "new" / "page.html"
    assert report.main([str(first), str(second), str(other), "--out", str(out)]) == 0
    assert re.search(r"report of 3 runs, 0\.\d MB: .*page\.html", capsys.readouterr().out)
    text = out.read_text(encoding="utf-8")
    assert "<h1>Report of 3 runs</h1>" in text
    anchors = re.findall(r'href="#([\w-]+)"', text)
    assert anchors == ["all-runs", "run-1", "run-2", "run-3"]
    assert re.findall(r'<section id="([\w-]+)"', text) == anchors
    assert report.main([str(other), "--out", str(out)]) == 0
    assert "<h1>Report: clothes</h1>" in out.read_text(encoding="utf-8")


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
        (_drop_corruption, "'fog' is missing"),
        (_percent, "divide percentages by 100"),
        (_not_a_number, "clean accuracy nan of ulfd"),
        (_drop_method, "no 'ulfd'"),
        (_short_uncertainty, "an uncertainty is missing"),
        (lambda content: content.update(results=[]), "list indices"),
        (lambda content: content.update(methods=[]), "no method"),
        (lambda content: content.pop("seeds"), "no 'seeds'"),
    ],
)
def test_damaged_numbers_are_explained(first, change, why, tmp_path, capsys):
    damage(first, change)
    out = tmp_path / "page.html"
    assert report.main([str(first), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {first} does not hold what a run leaves")
    assert why in error
    assert "delete metrics.json and give the run's command again" in error
    assert not out.exists()


def test_what_is_no_finished_run_is_explained(first, tmp_path, capsys):
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
        ([evaluation], "holds the evaluation of one network, not a run"),
        ([tmp_path / "empty"], "metrics.json: run `python -m reference_training.run` to its end"),
        ([tmp_path / "absent"], "give the folders of finished runs"),
        ([first / "metrics.json"], f"is a file; give the run's folder, here {first}"),
        ([tmp_path], f"holds runs, and is none: give {cut} {lone} {first}"),
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
