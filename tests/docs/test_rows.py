"""The page's table of every row says what the program does."""

import re

import pytest

from reference_training.experiments import plan
from reference_training.paper.experiments import EXPERIMENTS, ROWS
from reference_training.run import main, parse
from scripts.make_row_table import PAGE, table

LINES = {
    name: [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in table().splitlines()[2:]
    for name in re.findall("`([^`]+)`", line.split(" | ")[0])
}


def test_the_page_has_the_table_of_today():
    assert table() in PAGE.read_text(encoding="utf-8")
    assert set(LINES) == set(ROWS)
    wanted = {f"table{number}" for number in "12345"} | {"table6a", "table6b"}
    assert wanted | {"figure1", "figure2", "figure4"} <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", ROWS)
def test_a_rows_command_and_its_dry_run_say_the_same(name, monkeypatch, capsys):
    monkeypatch.setattr(plan, "cost", lambda job: plan.Cost(1, 0, 1, 1))
    command = ["--experiment", name, "--data-root", "imagenet"]
    assert parse([*command, "--evaluate"]).experiment == name
    assert main([*command, "--plan"]) == 0
    said = capsys.readouterr().out
    _, _, method, recipe, differs = LINES[name]
    assert f"method          {method}; differs: {differs}\n" in said
    assert f"recipe          {recipe}" in said
    iterations = re.search(r"([\d,]+) × (\d+)", recipe)
    if iterations is not None:
        count, batch = (number.replace(",", "") for number in iterations.groups())
        assert f"pairs           {count} iterations x {batch} =" in said
