"""One run's report, in order, as blocks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from reference_training.corruptions import CORRUPTIONS, SEVERITIES
from reference_training.reporting.blocks import Block, Code, Details, Heading, Paragraph, Table
from reference_training.reporting.comparison import (
    PAIRS,
    compared_pairs,
    corruption_table,
    difference_table,
    main_table,
    severity_table,
    verdict,
)
from reference_training.reporting.finished import FinishedRun
from reference_training.reporting.measures import Json
from reference_training.reporting.paper_columns import paper_doubts
from reference_training.reporting.plots import plots
from reference_training.reporting.uncertainty_tables import uncertainty_tables

MOST_TABLES = 2


def report_blocks(
    found: FinishedRun, *, sheet: Block | None, title: str | None = None
) -> list[Block]:
    """All that is said of one run.

    Args:
        found: the run.
        sheet: its sheet of corruptions, or what stands in its place.
        title: of a section in a report of several runs; None makes it the whole report.
    """
    metrics, level = found.metrics, 2 if title is None else 3
    return [
        Heading(f"Report: {metrics['dataset']}", 1) if title is None else Heading(title),
        Paragraph(summary(metrics, found.run)),
        main_table({found.name: metrics}),
        Paragraph(verdict(metrics, *PAIRS[0]), callout=True),
        *_doubts(metrics),
        *_differences(metrics, level),
        Heading("Each corruption", level),
        corruption_table(metrics),
        severity_table(metrics),
        *_uncertainty(metrics, level),
        Heading("Figures", level),
        *([sheet] if sheet else []),
        *plots(metrics),
        *_facts(found.run, level),
    ]


def summary(metrics: Json, run: Json) -> str:
    """What was run, in one sentence."""
    train = (run.get("dataset") or {}).get("train")
    many = "methods" if len(metrics["methods"]) > 1 else "method"
    return (
        f"{run.get('network')} trained on {train} images of {metrics['dataset']} with "
        f"{len(metrics['methods'])} {many} and the seeds {', '.join(map(str, metrics['seeds']))}, "
        f"evaluated on {metrics['evaluation_images']} test images, clean and under "
        f"{len(CORRUPTIONS)} corruptions at {len(SEVERITIES)} severities."
    )


def settings(run: Json) -> dict[str, str]:
    """Every setting of a run, by the name that its option has."""
    return dict(_flat(run.get("config") or {}))


def _doubts(metrics: Json) -> Iterator[Block]:
    if doubts := paper_doubts(metrics["methods"]):
        yield Details("Doubts about the paper's numbers", tuple(map(Paragraph, doubts)))


def _differences(metrics: Json, level: int) -> Iterator[Block]:
    if pairs := compared_pairs(metrics):
        yield Heading("Differences between the methods", level)
        yield difference_table(metrics)
        # The first pair's verdict already stands below the main table.
        yield from (Paragraph(verdict(metrics, *pair)) for pair in pairs if pair != PAIRS[0])


def _uncertainty(metrics: Json, level: int) -> Iterator[Block]:
    if blocks := uncertainty_tables(metrics):
        yield Heading("Predicted uncertainty", level)
        if sum(isinstance(block, Table) for block in blocks) > MOST_TABLES:
            yield Details("A table for each method with a UEM", tuple(blocks))
        else:
            yield from blocks


def _facts(run: Json, level: int) -> list[Block]:
    """Where the numbers come from, and how to make them again."""
    data, parameters, git = (run.get(key) or {} for key in ("dataset", "parameters", "git"))
    minutes, seconds = divmod(round(run.get("wall_seconds", 0)), 60)
    versions = ", ".join(f"{name} {v}" for name, v in (run.get("versions") or {}).items())
    changes = ", with uncommitted changes" if git.get("dirty") else ""
    facts = {
        "Data": f"{data.get('description')}; {data.get('train')} training and "
        f"{data.get('test')} test images",
        "Licence of the data": data.get("licence"),
        "SHA-256 of the data": data.get("sha256"),
        "Network": f"{run.get('network')}; {parameters.get('network')} parameters, and "
        f"{parameters.get('uem')} of the UEM, which is thrown away after training",
        "Frost": run.get("frost"),
        "Versions": versions,
        "Commit": f"{git['commit']}{changes}" if git else "not recorded: no git repository",
        "Wall time": f"{minutes} min {seconds} s of all starts together",
    }
    rows = tuple((name, str(value)) for name, value in facts.items())
    every = Table(("Setting", "Value"), tuple(settings(run).items()), "Settings", words=2)
    return [
        Heading("Where these numbers come from", level),
        Table(("What", "Value"), rows, "The run", words=2),
        Heading("Make it again", level),
        Paragraph("At the commit and with the versions above; finished parts are not repeated:"),
        Code(str(run.get("command"))),
        *([Details("Every setting", (every,))] if every.rows else []),
    ]


def _flat(config: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
