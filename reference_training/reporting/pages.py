"""Pages of finished runs: one run's own report, several side by side, and the terminal's table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from reference_training.reporting.across import comparison_blocks
from reference_training.reporting.blocks import (
    Block,
    Heading,
    Paragraph,
    Picture,
    html_document,
    markdown_document,
)
from reference_training.reporting.comparison import PAIRS, main_table, verdict
from reference_training.reporting.figures import corruption_sheet, picture
from reference_training.reporting.finished import (
    CAPTIONS,
    SHEET,
    FinishedRun,
    read_run,
    write_picture,
)
from reference_training.reporting.measures import Json
from reference_training.reporting.one_run import report_blocks, summary
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
    if example is not None:
        frost = (read_json(folder / "run.json").get("config") or {}).get("frost", "auto")
        draw = partial(corruption_sheet, example, 0, frost=frost)
        write_picture(folder, picture(f"figures/{SHEET}.png", CAPTIONS[SHEET], draw))
    run = read_run(folder)
    blocks = report_blocks(run, run.pictures)
    for block in blocks:
        if isinstance(block, Picture) and block not in run.pictures:
            write_picture(folder, block)
    page = html_document(f"Report: {run.metrics['dataset']}", blocks)
    write_atomically(folder / "report.md", markdown_document(blocks).encode())
    write_atomically(folder / "report.html", page.encode())


def page_of_runs(runs: Sequence[FinishedRun]) -> str:
    """The page about these runs; about one of them, its own report."""
    if len(runs) == 1:
        (run,) = runs
        return html_document(f"Report: {run.metrics['dataset']}", report_blocks(run, run.pictures))
    together = Section("all-runs", "All runs", tuple(comparison_blocks(runs)))
    known: dict[bytes, str] = {}
    each = []
    for index, run in enumerate(runs, 1):
        pictures = [_once(found, run.name, known) for found in run.pictures]
        blocks = report_blocks(run, pictures, title=run.name)
        each.append(Section(f"run-{index}", run.name, tuple(blocks)))
    title = f"Report of {len(runs)} runs"
    contents = Contents((together, *each))
    return html_document(title, [Heading(title, 1), contents, together, *each])


def _once(found: Picture, run: str, known: dict[bytes, str]) -> Block:
    """The picture, or where it stands already; `known` is {its bytes: the run that has it}."""
    first = known.setdefault(found.light, run)
    if first == run:
        return found
    return Paragraph(f"“{found.caption}” The picture is the same as in {first}.")


def terminal_table(metrics: Json, run: Json) -> str:
    """What was run, the main table and the verdict, as plain text."""
    blocks = (
        Paragraph(summary(metrics, run)),
        main_table({"This run": metrics}, paper=False),
        Paragraph(verdict(metrics, *PAIRS[0])),
    )
    return "\n\n".join(block.terminal() for block in blocks)
