"""The folder of a finished run, read and checked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reference_training.corruptions import CORRUPTIONS
from reference_training.evaluation.sets import SETS
from reference_training.reporting.blocks import Picture
from reference_training.reporting.measures import Json
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json, reading

SHEET = "figures/corruptions.png"
SHEET_CAPTION = "One test image under every corruption, severity 1 to 5 from left to right."
PNG = b"\x89PNG\r\n\x1a\n"
AGAIN = "Delete metrics.json and give the run's command again, which computes only what is missing"


@dataclass(frozen=True)
class FinishedRun:
    """What a run left: metrics.json, run.json, and the one picture that no number can redraw."""

    name: str
    metrics: Json
    run: Json
    sheet: Picture | None
    """Of the corruptions."""


def read_runs(folders: Sequence[Path]) -> list[FinishedRun]:
    """The runs in these folders, their names made distinct by as many parents as it takes.

    Raises:
        RunError: a folder is named twice, or holds no finished run; it says what to do.
    """
    full = [folder.resolve() for folder in folders]
    for folder in full:
        if full.count(folder) > 1:
            raise RunError(f"the run {folder} is named twice; name each once.")
    parts = 1
    while len({folder.parts[-parts:] for folder in full}) < len(full):
        parts += 1
    names = ["/".join(folder.parts[-parts:]) for folder in full]
    return [read_run(*pair) for pair in zip(folders, names, strict=True)]


def read_run(folder: Path, name: str = "") -> FinishedRun:
    """The run in this folder.

    Raises:
        RunError: it is not finished, damaged, or no run at all; it says what to do.
    """
    metrics, run, sheet = folder / "metrics.json", folder / "run.json", folder / SHEET
    if not metrics.is_file():
        raise RunError(_what_is_there(folder))
    if not run.is_file():
        raise RunError(
            f"no {run}: it says how the run was made; run the command of {folder} again."
        )
    with reading(folder, "does not hold what a run leaves in metrics.json and run.json", AGAIN):
        png = sheet.read_bytes() if sheet.is_file() else b""
        picture = Picture(SHEET, SHEET_CAPTION, png) if png.startswith(PNG) else None
        name = name or folder.resolve().name
        found = FinishedRun(name, read_json(metrics), read_json(run), picture)
        _check(found.metrics, found.run)
    return found


def _what_is_there(folder: Path) -> str:
    """Why a folder without metrics.json is no finished run, and what to do."""
    if (folder / "run.json").is_file():
        run = read_json(folder / "run.json")
        command = run.get("command") if isinstance(run, dict) else None
        return f"the run in {folder} is not finished; continue it with: {command}"
    runs = sorted(str(path.parent) for path in folder.glob("*/metrics.json"))
    remedy = (
        " ".join(runs) or "the folders that `python -m reference_training.run` leaves at its end"
    )
    return f"{folder} is no folder of a finished run: it has no metrics.json; give {remedy}."


def _check(metrics: Json, run: Json) -> None:
    """Raises whatever the shape of the numbers makes wrong, for `read_run` to explain."""
    for value, kind in ((run, dict), (metrics["dataset"], str), (metrics["seeds"], list)):
        if not isinstance(value, kind):
            raise TypeError(f"{value!r} where a {kind.__name__} belongs")
    int(metrics["evaluation_images"])
    results = {method: metrics["results"][method] for method in metrics["methods"]}
    if not results or not all(results.values()):
        raise ValueError("no method, or one without a seed")
    for method, seeds in results.items():
        for result in seeds.values():
            _check_values(f"accuracy of {method}", result, 1.0)
            if theta := result.get("uncertainty"):
                _check_values(f"uncertainty of {method}", theta, sys.float_info.max)


def _check_values(what: str, table: Json, most: float) -> None:
    values = [table["clean"], *(at for name in CORRUPTIONS for at in table["corruptions"][name])]
    if len(values) != len(SETS):
        raise ValueError(f"an {what} is missing: {len(values)} sets of {len(SETS)}")
    for value in values:
        if not 0 <= value <= most:
            raise ValueError(f"an {what} is {value}; divide percentages by 100")
