"""The suite's options and how it marks, names and groups its cases; see `docs/benchmarks.md`.

Only `test_*.py` are collected: the scripts hold no tests, and some need a GPU's packages.
"""

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
