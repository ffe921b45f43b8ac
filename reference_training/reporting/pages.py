"""Pages of finished runs: one run's own report, several side by side, and the terminal's table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from reference_training.reporting.across import comparison_blocks
from reference_training.reporting.blocks import (
    Block,
    Heading,
    Paragraph,
    Picture,
    Section,
    html_document,
    markdown_document,
)
from reference_training.reporting.comparison import PAIRS, main_table, verdict
from reference_training.reporting.figures import corruption_sheet
from reference_training.reporting.finished import (
    SHEET,
    SHEET_CAPTION,
    FinishedRun,
    read_run,
    write_picture,
)
from reference_training.reporting.measures import Json
from reference_training.reporting.one_run import report_blocks, summary
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
        write_picture(folder, corruption_sheet(SHEET, SHEET_CAPTION, example, frost=frost))
    run = read_run(folder)
    blocks = report_blocks(run, sheet=run.sheet)
    for block in blocks:
        if isinstance(block, Picture) and block is not run.sheet:
            write_picture(folder, block)
    page = html_document(f"Report: {run.metrics['dataset']}", blocks)
    write_atomically(folder / "report.md", markdown_document(blocks).encode())
    write_atomically(folder / "report.html", page.encode())


def page_of_runs(runs: Sequence[FinishedRun]) -> str:
    """The page about these runs; about one of them, its own report."""
    if len(runs) == 1:
        (run,) = runs
        title = f"Report: {run.metrics['dataset']}"
        return html_document(title, report_blocks(run, sheet=run.sheet))
    sections = [Section("all-runs", "All runs", tuple(comparison_blocks(runs)))]
    owners: dict[Picture, str] = {}
    for index, run in enumerate(runs, 1):
        sheet: Block | None = run.sheet
        if run.sheet and owners.setdefault(run.sheet, run.name) != run.name:
            sheet = Paragraph(f"The sheet of corruptions is the same as in {owners[run.sheet]}.")
        blocks = report_blocks(run, sheet=sheet, title=run.name)
        sections.append(Section(f"run-{index}", run.name, tuple(blocks)))
    title = f"Report of {len(runs)} runs"
    return html_document(title, [Heading(title, 1), *sections])


def terminal_table(metrics: Json, run: Json) -> str:
    """What was run, the main table and the verdict, as plain text."""
    blocks = (
        Paragraph(summary(metrics, run)),
        main_table({"This run": metrics}, paper=False),
        Paragraph(verdict(metrics, *PAIRS[0])),
    )
    return "\n\n".join(block.terminal() for block in blocks)
