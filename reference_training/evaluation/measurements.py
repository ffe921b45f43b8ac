"""A run's metrics in a compact form: the results as a CSV, all else as the JSON file beside it.

The CSV has a row for each network and measure, with a column for each evaluation set. `correct`
counts images; the other measures are rounded; an empty cell says that one is not defined on a set.
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reference_training.corruptions import CORRUPTIONS, SEVERITIES
from reference_training.evaluation.sets import SETS
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json, write_atomically, write_json

CORRECT, THETA = "correct", "uncertainty"
FORMATS = {
    THETA: ".5g",  # of any size, and its order by severity must stay
    "weighted_square": ".2f",
    "image_rank_correlation": ".2f",
    "element_rank_correlation": ".2f",
    "auroc": ".2f",
}
"""How the measures of a UEM are written: θ, and those of its calibration."""
HEADER = "method seed measure".split() + [f"{name} {at}" if at else name for name, at in SETS]
Json = Mapping[str, Any]


def write(path: Path, metrics: Json, *, uncertainty: bool = True) -> None:
    """Writes metrics to `path`.csv and `path`.json, each atomically.

    Args:
        path: without a suffix.
        metrics: in the form of metrics.json, with further facts if wanted.
        uncertainty: whether the measures of a UEM are kept.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(HEADER)
    for method, seeds in metrics["results"].items():
        for seed, result in seeds.items():
            counts = (round(metrics["evaluation_images"] * share) for share in _values(result))
            table.writerow((method, seed, CORRECT, *counts))
            measured = {THETA: result["uncertainty"], **result.get("calibration", {})}
            measured = measured if uncertainty else {}
            for measure in filter(measured.get, FORMATS):
                values = _values(measured[measure])
                cells = (
                    "" if value is None else format(value, FORMATS[measure]) for value in values
                )
                table.writerow((method, seed, measure, *cells))
    write_atomically(path.with_suffix(".csv"), text.getvalue().encode())
    facts = {key: value for key, value in metrics.items() if key != "results"}
    write_json(path.with_suffix(".json"), facts)


def read(path: Path) -> dict[str, Any]:
    """What `write` wrote, in the form of metrics.json; empty if there is nothing.

    Raises:
        RunError: a file is not of this form.
    """
    if not path.with_suffix(".json").is_file():
        return {}
    metrics = read_json(path.with_suffix(".json"))
    text = path.with_suffix(".csv").read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines()))
    if rows[:1] != [HEADER] or any(len(row) != len(HEADER) for row in rows):
        raise RunError(f"{path}.csv is damaged, or of another version; make it again.")
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for method, seed, measure, *cells in rows[1:]:
        result = results.setdefault(method, {}).setdefault(seed, {"uncertainty": None})
        if measure == CORRECT:
            result |= _by_set([int(cell) / metrics["evaluation_images"] for cell in cells])
            continue
        kept = result if measure == THETA else result.setdefault("calibration", {})
        kept[measure] = _by_set([float(cell) if cell else None for cell in cells])
    return metrics | {"results": results}


def _values(table: Json) -> list[Any]:
    """The values in the order of `SETS`."""
    return [
        table["clean"],
        *(value for name in CORRUPTIONS for value in table["corruptions"][name]),
    ]


def _by_set(values: list[Any]) -> dict[str, Any]:
    """The inverse of `_values`."""
    count = len(SEVERITIES)
    rows = {name: values[1 + count * at :][:count] for at, name in enumerate(CORRUPTIONS)}
    return {"clean": values[0], "corruptions": rows}
