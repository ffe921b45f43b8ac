"""One page about finished runs: `python -m reference_training.report RUN [RUN ...]`.

RUN is the folder of a finished `python -m reference_training.run`; one of a row on ImageNet stands
alone. The page is one HTML file
that needs no network: a section for each run, and all of them side by side.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from reference_training.reporting.finished import read_runs
from reference_training.reporting.pages import is_row, page_of_row, page_of_runs
from reference_training.runtime.command import exit_code
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import write_atomically


def execute(
    runs: Annotated[tuple[Path, ...], Positional, tyro.conf.arg(metavar="RUN [RUN ...]")],
    out: Path = Path("report.html"),
) -> None:
    """Reads the runs, writes the page, and says where it is.

    Args:
        runs: The folders of finished runs, of the same dataset or of several.
        out: The page; what is there is replaced.
    """
    if not runs:
        raise RunError("no run is given; give the folders of finished runs, as runs/digits.")
    rows = [folder for folder in runs if is_row(folder)]
    if rows and len(runs) > 1:
        raise RunError(
            f"{rows[0]} is a row on ImageNet, whose page stands alone: give it by itself. Several "
            "rows are set beside each other by `python -m reference_training.run --dataset "
            "imagenet --experiment table5`."
        )
    page = (page_of_row(rows[0]) if rows else page_of_runs(read_runs(runs))).encode()
    write_atomically(out, page)
    many = "runs" if len(runs) > 1 else "run"
    print(f"report of {len(runs)} {many}, {len(page) / 1e6:.1f} MB: {out}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    prog = "python -m reference_training.report"
    return exit_code(lambda: tyro.cli(execute, prog=prog, args=arguments, description=__doc__))


if __name__ == "__main__":
    sys.exit(main())
