"""What the files of the suite share: a case's name and group, and clocks that count per image."""

import time
from collections.abc import Callable
from typing import Any

import pytest


def case(*values: Any, group: str, row: str, by_default: bool, **options: Any) -> Any:
    """A parameter set: one row of the group's table.

    Args:
        values: of the test's parameters.
        group: the title of the table, a problem.
        row: its name, an implementation.
        by_default: whether it is measured without --everything.
        options: of pytest-benchmark's marker.
    """
    marks = [pytest.mark.benchmark(group=group, **options)]
    if not by_default:
        marks.append(pytest.mark.extended)
    identifier = f"{group}: {row}".replace("×", "x")  # which -k does not take
    return pytest.param(*values, id=identifier, marks=marks)


def per_image(images: int) -> Callable[[], float]:
    """The processor's time, which waiting for others does not lengthen, divided by the images."""
    return lambda: time.process_time() / images
