"""One page about finished runs: `python -m reference_training.report RUN [RUN ...]`.

Each RUN is the folder of a finished `python -m reference_training.run`. The page is one HTML file
that needs no network: a section for each run, and all of them side by side.
"""

# A run's own report, `write_report`, is the same section alone, as report.html and report.md.

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from torch import Tensor
from tyro.conf import Positional

from reference_training.comparison import PAIRS, Json, main_table, verdict
from reference_training.errors import RunError
from reference_training.figures import DARK, LIGHT, corruption_sheet, png
from reference_training.files import read_json, write_atomically
from reference_training.reporting import finished
from reference_training.reporting.across import comparison_blocks
from reference_training.reporting.charts import Curves
from reference_training.reporting.finished import FinishedRun, read_run, read_runs
from reference_training.reporting.one_run import report_blocks, summary
from reference_training.reporting.plots import styles
from reference_training.reporting.sections import Contents, Section
from reference_training.tables import (
    Block,
    Heading,
    Paragraph,
    html_document,
    markdown_document,
)


@dataclass(frozen=True)
class Report:
    """What the command line asks for."""

    runs: Annotated[tuple[Path, ...], Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """The folders of finished runs, of the same dataset or of several."""
    out: Path = Path("report.html")
    """The page; what is there is replaced."""


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


def execute(given: Report) -> None:
    """Reads the runs, writes the page, and says where it is."""
    if not given.runs:
        raise RunError("no run is given; give the folders of finished runs, as runs/digits.")
    page = page_of_runs(read_runs(given.runs)).encode()
    write_atomically(given.out, page)
    many = "runs" if len(given.runs) > 1 else "run"
    print(f"report of {len(given.runs)} {many}, {len(page) / 1e6:.1f} MB: {given.out}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    try:
        execute(
            tyro.cli(
                Report,
                prog="python -m reference_training.report",
                args=arguments,
                description=__doc__,
            )
        )
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
