"""Folders of finished runs that tests compare."""

import pytest

from reference_training.reporting import figures
from reference_training.reporting.blocks import Picture
from tests.reference_training.fabricated import RUN, full, metrics, write_run


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


@pytest.fixture
def undrawn(monkeypatch):
    """Curves that are not drawn, for pages of which a test reads the text alone."""
    monkeypatch.setattr(
        figures, "picture", lambda path, caption, draw: Picture(path, caption, b"not drawn")
    )
