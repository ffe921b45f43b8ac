"""The documentation's tables are what the data files say."""

from pathlib import Path

from benchmarks import tables

ROOT = Path(__file__).parents[1]


def test_results_are_made_from_the_data():
    assert (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8") == tables.document()


def test_the_readmes_table_too():
    table = tables.readme_table(tables.load("gpu_h100.json"))
    assert table in (ROOT / "README.md").read_text(encoding="utf-8")
