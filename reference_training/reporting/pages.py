"""Pages of finished runs: one run's own report, several side by side, and the terminal's table."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from reference_training.corruptions import CORRUPTIONS, SEVERITIES
from reference_training.reporting.across import comparison_blocks
from reference_training.reporting.blocks import (
    WIDTH,
    Block,
    Details,
    Heading,
    Paragraph,
    Picture,
    Section,
    Table,
    html_document,
    markdown_document,
)
from reference_training.reporting.comparison import (
    PAIRS,
    compared_pairs,
    corruption_table,
    difference_table,
    main_table,
    severity_table,
    uncertainty_tables,
    verdict,
)
from reference_training.reporting.figures import corruption_sheet, plots
from reference_training.reporting.finished import SHEET, FinishedRun, read_run
from reference_training.reporting.measures import Json
from reference_training.reporting.result_tables import paper_doubts
from reference_training.reporting.settings import how_to_repeat
from reference_training.runtime.files import read_json, write_atomically


def write_report(folder: Path, *, example: Tensor | None = None) -> None:
    """Writes report.md, report.html and figures/*.png beside metrics.json and run.json.

    Args:
        folder: of a finished run.
        example: a test image, uint8 (3, H, W), for the sheet of corruptions; None leaves it out.

    Raises:
        RunError: a file is missing or damaged, a number is missing or no fraction, or the folder
            cannot be written.
    """
    if example is not None:
        frost = (read_json(folder / "run.json").get("config") or {}).get("frost", "auto")
        write_atomically(folder / SHEET, corruption_sheet(example, frost=frost))
    run = read_run(folder)
    blocks = report_blocks(run)
    for block in blocks:
        if isinstance(block, Picture):
            write_atomically(folder / block.path, block.png)
    write_atomically(folder / "report.md", markdown_document(blocks).encode())
    write_atomically(folder / "report.html", html_document(_title(run), blocks).encode())


def page_of_runs(runs: Sequence[FinishedRun]) -> str:
    """The page about these runs; about one of them, its own report."""
    if len(runs) == 1:
        return html_document(_title(runs[0]), report_blocks(runs[0]))
    sections = [Section("all-runs", "All runs", tuple(comparison_blocks(runs)))]
    for index, run in enumerate(runs, 1):
        blocks = report_blocks(run, title=run.name)
        sections.append(Section(f"run-{index}", run.name, tuple(blocks)))
    title = f"Report of {len(runs)} runs"
    return html_document(title, [Heading(title, 1), *sections])


def _title(run: FinishedRun) -> str:
    return f"Report: {run.metrics['dataset']}"


def terminal_table(metrics: Json, run: Json) -> str:
    """What was run, the main table and the verdict, as plain text."""
    table = main_table({"This run": metrics}, paper=False).terminal()
    said, found = summary(metrics, run), verdict(metrics, *PAIRS[0])
    return f"{textwrap.fill(said, WIDTH)}\n\n{table}\n\n{textwrap.fill(found, WIDTH)}"


def report_blocks(found: FinishedRun, *, title: str | None = None) -> list[Block]:
    """All that is said of one run.

    Args:
        found: the run.
        title: of a section in a report of several runs; None makes it the whole report.
    """
    metrics, level = found.metrics, 2 if title is None else 3
    blocks: list[Block] = [
        Heading(_title(found), 1) if title is None else Heading(title),
        Paragraph(summary(metrics, found.run)),
        main_table({found.name: metrics}),
        Paragraph(verdict(metrics, *PAIRS[0]), callout=True),
    ]
    if doubts := paper_doubts(metrics["methods"]):
        blocks.append(Details("Doubts about the paper's numbers", tuple(map(Paragraph, doubts))))
    if pairs := compared_pairs(metrics):
        blocks += [Heading("Differences between the methods", level), difference_table(metrics)]
        # The first pair's verdict already stands below the main table.
        blocks += [Paragraph(verdict(metrics, *pair)) for pair in pairs if pair != PAIRS[0]]
    blocks += [
        Heading("Each corruption", level),
        corruption_table(metrics),
        severity_table(metrics),
    ]
    if tables := uncertainty_tables(metrics):
        blocks += [Heading("Predicted uncertainty", level)]
        blocks += [Details("A table for each method with a UEM", tuple(tables))]
    blocks += [Heading("Figures", level), *([found.sheet] if found.sheet else []), *plots(metrics)]
    return [*blocks, *_facts(found.run, level)]


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
    return [
        Heading("Where these numbers come from", level),
        Table(("What", "Value"), rows, "The run", words=2),
        *how_to_repeat(run, level),
    ]
