"""The documentation's tables are what the data files say."""

from pathlib import Path

from benchmarks import tables

ROOT = Path(__file__).parents[2]


def test_results_are_made_from_the_data():
    assert (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8") == tables.document()


def test_the_readmes_tables_too():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.readme_table(tables.load("gpu_h100.json")) in readme
    assert tables.readme_cpu_table(tables.load("cpu.json")) in readme
