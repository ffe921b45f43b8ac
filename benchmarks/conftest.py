"""The suite's options and how it marks, names and groups its cases; see `docs/benchmarks.md`.

Only `test_*.py` are collected: the scripts hold no tests, and some need a GPU's packages.
"""

from collections import Counter
from pathlib import Path

import pytest

collect_ignore = [
    str(path) for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")
]


def pytest_addoption(parser):
    parser.addoption("--everything", action="store_true", help="all published cases, not a few")
    parser.addoption("--wheel", type=Path, help="imagecorruptions-1.1.2-py3-none-any.whl, a peer")


def pytest_configure(config):
    config.addinivalue_line("markers", "extended: only with --everything")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--everything"):
        return
    extended = [item for item in items if item.get_closest_marker("extended")]
    config.hook.pytest_deselected(items=extended)
    items[:] = [item for item in items if not item.get_closest_marker("extended")]


@pytest.fixture(autouse=True)
def _row_name(benchmark):
    """The title of the table says the rest."""
    benchmark.name = benchmark.param.rsplit(": ", 1)[-1]


@pytest.hookimpl(wrapper=True)
def pytest_benchmark_group_stats(group_by):
    """Stages of one whole say how many go through in a second, and their share of its time."""
    groups = yield
    for _, rows in groups if group_by == "group" else []:
        stages = [row for row in rows if "stage_of" in row["extra_info"]]
        wholes = Counter()  # of every run that is compared
        for row in stages:
            wholes[row["path"]] += row["min"]
        for row in stages:
            rate, share = 1 / row["min"], row["min"] / wholes[row["path"]]
            row["name"] += f": {rate:,.1f} {row['extra_info']['stage_of']}/s, {share:.1%}"
    return groups
