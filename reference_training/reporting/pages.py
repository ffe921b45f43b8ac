"""Pages of finished runs: one run's own report, several side by side, and the terminal's table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from reference_training.reporting import finished
from reference_training.reporting.across import comparison_blocks
from reference_training.reporting.blocks import (
    Block,
    Heading,
    Paragraph,
    html_document,
    markdown_document,
)
from reference_training.reporting.charts import Curves
from reference_training.reporting.comparison import PAIRS, Json, main_table, verdict
from reference_training.reporting.figures import DARK, LIGHT, corruption_sheet, png
from reference_training.reporting.finished import FinishedRun, read_run
from reference_training.reporting.one_run import report_blocks, summary
from reference_training.reporting.plots import styles
from reference_training.reporting.sections import Contents, Section
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
    figures = folder / "figures"
    if example is not None:
        frost = (read_json(folder / "run.json").get("config") or {}).get("frost", "auto")
        for theme, suffix in ((LIGHT, ""), (DARK, finished.DARK)):
            sheet = png(corruption_sheet(example, 0, frost=frost, theme=theme))
            write_atomically(figures / f"{finished.SHEET}{suffix}.png", sheet)
    found = read_run(folder)
    blocks = report_blocks(found.metrics, found.run, found.pictures)
    for block in blocks:
        if isinstance(block, Curves):
            write_atomically(folder / block.path, block.png(LIGHT))
    page = html_document(f"Report: {found.metrics['dataset']}", blocks)
    write_atomically(folder / "report.md", markdown_document(blocks).encode())
    write_atomically(folder / "report.html", page.encode())


def page_of_runs(runs: Sequence[FinishedRun]) -> str:
    """The page about these runs; about one of them, its own report."""
    if len(runs) == 1:
        (run,) = runs
        title = f"Report: {run.metrics['dataset']}"
        return html_document(title, report_blocks(run.metrics, run.run, run.pictures))
    numbers = styles(*(run.metrics for run in runs))
    together = Section("all-runs", "All runs", tuple(comparison_blocks(runs)))
    shown: dict[bytes, str] = {}
    each = tuple(
        Section(f"run-{index}", run.name, tuple(_section(run, numbers, shown)))
        for index, run in enumerate(runs, 1)
    )
    title = f"Report of {len(runs)} runs"
    return html_document(title, [Heading(title, 1), Contents((together, *each)), together, *each])


def _section(run: FinishedRun, numbers: dict[str, int], shown: dict[bytes, str]) -> list[Block]:
    """One run's blocks; a picture that an earlier run has `shown` is not repeated."""
    new = [picture for picture in run.pictures if picture.light not in shown]
    old: list[Block] = [
        Paragraph(f"“{picture.caption}” The picture is the same as in {shown[picture.light]}.")
        for picture in run.pictures
        if picture not in new
    ]
    shown.update({picture.light: run.name for picture in new})
    return report_blocks(run.metrics, run.run, [*new, *old], title=run.name, numbers=numbers)


def terminal_table(metrics: Json, run: Json) -> str:
    """What was run, the main table and the verdict, as plain text."""
    blocks = (
        Paragraph(summary(metrics, run)),
        main_table(metrics, paper=False),
        Paragraph(verdict(metrics, *PAIRS[0])),
    )
    return "\n\n".join(block.terminal() for block in blocks)
