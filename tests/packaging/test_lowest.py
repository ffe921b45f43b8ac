"""The constraints of `make test-lowest` are pyproject.toml's lower bounds."""

import re
import tomllib

import pytest

from tests.packaging import lowest

PROJECT = {
    "dependencies": ["a>=1.9"],
    "optional-dependencies": {
        "one": ["b[x]>=2,<3; platform_system == 'Linux'", "a>=1.10"],
        "both": ["ulfd[one]", "c-d>=0.3.1"],
        "open": ["e<2"],
    },
}


def test_the_higher_bound_counts_and_extras_are_followed():
    assert lowest.constraints(PROJECT, ["both"]) == ["a==1.10", "b==2", "c-d==0.3.1"]
    assert lowest.constraints(PROJECT, []) == ["a==1.9"]


def test_a_missing_bound_is_named():
    with pytest.raises(ValueError, match="'e<2' has no lower bound"):
        lowest.constraints(PROJECT, ["open"])


def test_every_extra_of_the_project_has_bounds():
    project = tomllib.loads(lowest.PYPROJECT.read_text(encoding="utf-8"))["project"]
    found = lowest.constraints(project, list(project["optional-dependencies"]))
    assert len(found) > 20
    assert all(re.fullmatch(r"[\w.-]+==[\d.]+", line) for line in found)
