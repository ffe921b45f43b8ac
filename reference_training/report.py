"""One page about finished runs: `python -m reference_training.report RUN [RUN ...]`.

Each RUN is the folder of a finished `python -m reference_training.run`. The page is one HTML file
that needs no network: a section for each run, and all of them side by side.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from reference_training.reporting.finished import read_runs
from reference_training.reporting.pages import page_of_runs
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import write_atomically


@dataclass(frozen=True)
class Report:
    """What the command line asks for."""

    runs: Annotated[tuple[Path, ...], Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """The folders of finished runs, of the same dataset or of several."""
    out: Path = Path("report.html")
    """The page; what is there is replaced."""


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
