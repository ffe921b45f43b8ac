"""The paper's printed numbers, paper_results.json, read once and looked up here."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PAPER: dict[str, Any] = json.loads(
    Path(__file__).with_name("paper_results.json").read_text(encoding="utf-8")
)


def entry(table: str | None, row: str) -> Mapping[str, Any]:
    """The printed row of a table, empty if it has none.

    Args:
        table: its key in paper_results.json; None for what is no table of the paper.
        row: `Row.key` of `paper.experiments`.
    """
    rows: Iterable[Mapping[str, Any]] = PAPER.get(table or "", {}).get("rows", ())
    return next((found for found in rows if found["row"] == row), {})


def printed(table: str | None, row: str, names: Sequence[str]) -> float | None:
    """The printed number in %, under the first of these names that the row has, or None."""
    found = entry(table, row)
    return next((found[name] for name in names if name in found), None)
