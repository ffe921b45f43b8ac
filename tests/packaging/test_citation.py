"""CITATION.cff names the version that the package has."""

import re
from pathlib import Path

import ulfd

CITATION = Path(__file__).parents[2] / "CITATION.cff"


def test_the_citation_is_of_this_version() -> None:
    found = re.search(r"^version: (\S+)$", CITATION.read_text(), re.MULTILINE)
    assert found is not None
    assert found[1] == ulfd.__version__
