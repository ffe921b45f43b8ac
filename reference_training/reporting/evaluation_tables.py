"""The tables of an evaluation's result."""

from __future__ import annotations

import re
from statistics import fmean

from reference_training.corruptions import SEVERITIES
from reference_training.reporting.blocks import ABSENT, Table
from reference_training.reporting.measures import Json


def corruption_table(result: Json) -> Table:
    """Rows: clean sets and corruptions. Columns: top-1 by severity, means, errors; all in %."""
    normaliser = result["metrics"]["mce"]["normaliser"]
    kinds = {"mean_error": "Mean error"}
    if normaliser:
        kinds["ce"] = f"CE, {normaliser['name']} = 100"
        kinds["relative_ce"] = f"Relative CE, {normaliser['name']} = 100"
    top1, top5 = result["top1"], result["top5"] or {"clean": {}, "corruptions": {}}
    empty = [None] * len(SEVERITIES)
    rows: list[tuple[str, list[float | None]]] = [
        (name, [*empty, value, top5["clean"].get(name), 1 - value])
        for name, value in top1["clean"].items()
    ]
    for name, values in top1["corruptions"].items():
        fifth = fmean(top5["corruptions"][name]) if result["top5"] else None
        errors = map(result["corruption_errors"][name].get, kinds)
        rows.append((name, [*values, fmean(values), fifth, *errors]))
    severities = (f"Top-1, severity {severity}" for severity in SEVERITIES)
    header = ("Set", *severities, "Mean top-1", "Mean top-5", *kinds.values())
    return Table(
        header=header,
        # Clean images have no corruption errors but the first.
        rows=tuple(
            (name, *map(percent, (values + empty)[: len(header) - 1])) for name, values in rows
        ),
        caption=f"{result['model']['name']}: each corruption, %; {result['label']}",
    )


def metric_table(result: Json) -> Table:
    """Rows: metrics with their normaliser and its source; of few types, each type's top-1."""
    metrics = result["metrics"]
    normaliser = metrics["mce"]["normaliser"]
    notes = [f"{normaliser['name']}: {normaliser['source']}."] if normaliser else []
    unsaid: dict[str, list[str]] = {}
    for entry in metrics.values():
        if entry["why_not"]:
            unsaid.setdefault(entry["why_not"], []).append(re.split("[:,]", entry["title"])[0])
    notes += [f"No {', '.join(titles)}: {why_not}." for why_not, titles in unsaid.items()]
    rows = [
        (entry["title"], percent(entry["value"]), (entry["normaliser"] or {}).get("name", ABSENT))
        for entry in metrics.values()
        if entry["value"] is not None
    ]
    if metrics["seen_top1"]["value"] is None and metrics["unseen_top1"]["value"] is None:
        rows += [
            (f"Top-1 ({name}, {len(values)} severities)", percent(fmean(values)), ABSENT)
            for name, values in result["top1"]["corruptions"].items()
        ]
    return Table(
        header=("Metric", "%", "Normalised by"),
        rows=tuple(rows),
        caption=f"{result['model']['name']}: {result['label']}",
        notes=tuple(notes),
    )


def percent(value: float | None) -> str:
    """A fraction as "63.44", or a dash."""
    return ABSENT if value is None else f"{100 * value:.2f}"
