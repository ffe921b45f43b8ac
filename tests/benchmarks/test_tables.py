"""The documentation's tables are what the data files say."""

from pathlib import Path

from benchmarks import tables

ROOT = Path(__file__).parents[2]


def test_results_are_made_from_the_data():
    assert (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8") == tables.document()
