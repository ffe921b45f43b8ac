"""The folder of a finished run, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from reference_training.corruptions import CORRUPTIONS, SEVERITIES
from reference_training.evaluation import corruption_error as ce
from reference_training.reporting.blocks import Picture
from reference_training.reporting.measures import Json
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json, write_atomically

SHEET = "figures/corruptions.png"
SHEET_CAPTION = "One test image under every corruption, severity 1 to 5 from left to right."
PNG = b"\x89PNG\r\n\x1a\n"


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
    metrics = folder / "metrics.json"
    try:
        if not metrics.is_file():
            raise RunError(_what_is_there(folder))
        run = folder / "run.json"
        if not run.is_file():
            raise RunError(
                f"no {run}: it says how the run was made; run the command of {folder} again."
            )
        found = FinishedRun(
            name or folder.resolve().name, read_json(metrics), read_json(run), _sheet(folder)
        )
    except OSError as error:
        raise RunError(f"cannot read {error.filename}: {error.strerror or error}.") from error
    try:
        _check(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else error
        raise RunError(
            f"{folder} does not hold what a run leaves in metrics.json and run.json ({why}); "
            "delete metrics.json and give the run's command again, which computes only what is "
            "missing."
        ) from error
    return found


def _what_is_there(folder: Path) -> str:
    """Why a folder without metrics.json is no finished run, and what to do."""
    if folder.is_file():
        return f"{folder} is a file; give the run's folder, here {folder.parent}."
    if not folder.is_dir():
        return f"no folder {folder}; give the folders of finished runs, as runs/digits."
    if (folder / "run.json").is_file():
        run = read_json(folder / "run.json")
        command = run.get("command") if isinstance(run, dict) else None
        return f"the run in {folder} is not finished; continue it with: {command}"
    if (folder / "result.json").is_file():
        return (
            f"{folder} holds the evaluation of one network, not a run; a report is of the folders "
            "that `python -m reference_training.run` leaves."
        )
    if runs := sorted(path.parent for path in folder.glob("*/metrics.json")):
        return f"{folder} holds runs, and is none: give {' '.join(map(str, runs))}."
    return f"no {folder / 'metrics.json'}: run `python -m reference_training.run` to its end first."


def write_picture(folder: Path, picture: Picture) -> None:
    """Writes the PNG file that Markdown shows, and its dark twin."""
    path = folder / picture.path
    write_atomically(path, picture.light)
    write_atomically(_twin(path), picture.dark)


def _twin(path: Path) -> Path:
    return path.with_stem(f"{path.stem}-dark")


def _sheet(folder: Path) -> Picture | None:
    """The sheet of corruptions, with its dark twin if there is one."""
    found = [
        path.read_bytes() if path.is_file() else b""
        for path in (folder / SHEET, _twin(folder / SHEET))
    ]
    light, dark = (png if png.startswith(PNG) else b"" for png in found)
    return Picture(SHEET, SHEET_CAPTION, light, dark or light) if light else None


def _check(found: FinishedRun) -> None:
    """Raises whatever the shape of the numbers makes wrong, for `read_run` to explain."""
    metrics, run = found.metrics, found.run
    for value, kind in ((run, dict), (metrics["dataset"], str), (metrics["seeds"], list)):
        if not isinstance(value, kind):
            raise TypeError(f"{value!r} where a {kind.__name__} belongs")
    int(metrics["evaluation_images"])
    if not metrics["methods"]:
        raise ValueError("no method")
    for method in metrics["methods"]:
        results = metrics["results"][method]
        if not results:
            raise ValueError(f"no seed of {method}")
        for result in results.values():
            ce.seen_accuracy(result["corruptions"])
            ce.unseen_accuracy(result["corruptions"])
            if not 0 <= result["clean"] <= 1:
                raise ValueError(f"the clean accuracy {result['clean']} of {method}")
            _check_uncertainty(result.get("uncertainty"))


def _check_uncertainty(theta: Any) -> None:
    if not theta:
        return
    rows = [theta["corruptions"][name] for name in CORRUPTIONS]
    values = [theta["clean"], *(value for row in rows for value in row)]
    if any(len(row) != len(SEVERITIES) for row in rows) or not all(map(isfinite, values)):
        raise ValueError("an uncertainty is missing or not finite")
