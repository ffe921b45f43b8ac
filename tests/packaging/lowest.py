"""The lowest versions that pyproject.toml promises, as constraints for pip.

`python lowest.py train,triton` prints a line as torch==2.7 for every lower bound of these extras
and of the extras that they name; where two of them bound one package, the higher bound. Without an
argument: of what the project needs in any case.
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
BOUND = re.compile(r"([\w.-]+)(?:\[[^]]*\])?>=([\d.]+)")
NAMED = re.compile(r"ulfd\[([^]]*)\]")


def requirements(project: Mapping[str, Any], extras: list[str]) -> Iterator[str]:
    """What the project and these extras require; an extra named in another is followed."""
    yield from project["dependencies"]
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            if named := NAMED.fullmatch(requirement):
                yield from requirements(project, named[1].split(","))
            else:
                yield requirement


def constraints(project: Mapping[str, Any], extras: list[str]) -> list[str]:
    """`package==bound` for every requirement.

    Raises:
        ValueError: a requirement has no lower bound.
    """
    lowest: dict[str, str] = {}
    for requirement in requirements(project, extras):
        bound = BOUND.match(requirement)
        if bound is None:
            raise ValueError(f"pyproject.toml: {requirement!r} has no lower bound (>=).")
        name, version = bound.groups()
        lowest[name] = max(lowest.get(name, "0"), version, key=_numbers)
    return [f"{name}=={version}" for name, version in sorted(lowest.items())]


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


if __name__ == "__main__":
    extras = sys.argv[1].split(",") if sys.argv[1:] else []
    with PYPROJECT.open("rb") as file:
        print(*constraints(tomllib.load(file)["project"], extras), sep="\n")
