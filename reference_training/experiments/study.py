"""The study at laptop scale: `python -m reference_training.experiments.study` makes results/ again.

Its parts are `paper.study.PARTS`; each is one run, and all continue where they were left.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import tyro

from reference_training.evaluation import measurements
from reference_training.experiments import small
from reference_training.methods.trainings import canonical
from reference_training.paper.study import CANDIDATES, COMMON, PARTS, with_lambda
from reference_training.reporting import study_page
from reference_training.reporting.measures import MEASURES
from reference_training.runtime.command import exit_code
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json, write_atomically

FACTS = "versions git frost parameters wall_seconds".split()
"""What is kept of run.json."""


def select_weights(validation: Mapping[str, Any]) -> dict[str, float]:
    """{candidate: the λ with the best mean seen top-1}, from the data of the part `validation`."""

    def score(name: str) -> float:
        results = validation["results"][canonical(name)]
        return fmean(MEASURES["seen"].by_seed(results).values())

    return {
        candidate: max(weights, key=lambda weight: score(with_lambda(name, weight)))
        for candidate, (name, weights) in CANDIDATES.items()
    }


def resolved(methods: Sequence[str], weights: Mapping[str, float]) -> tuple[str, ...]:
    """The methods, with the chosen λ in the place of the candidates' names."""
    return tuple(
        with_lambda(CANDIDATES[name][0], weights[name]) if name in CANDIDATES else name
        for name in methods
    )


def execute(
    parts: tuple[str, ...] = tuple(PARTS),
    results: Path = Path("results"),
    runs: Path = Path("runs/study"),
    data_root: Path | None = None,
    jobs: int | None = None,
    tables: bool = False,
) -> None:
    """Runs the parts of the study, keeps their data, and makes the page.

    Args:
        parts: Which parts, in this order.
        results: Receives the data of each part, and the page.
        runs: Keeps the networks, from which a killed study continues.
        data_root: The folder with Fashion-MNIST's files, for full_fashion_mnist.
        jobs: Worker processes; all cores by default.
        tables: Only make the page again, from the data that is there.
    """
    if unknown := set(parts) - set(PARTS):
        raise RunError(f"unknown parts {sorted(unknown)}; use some of {list(PARTS)}.")
    for name in () if tables else parts:
        part = PARTS[name]
        needs_files = part.run.dataset == "fashion-mnist"
        if needs_files and data_root is None:
            print(
                f"left out: {name} needs the files of Fashion-MNIST in --data-root (Debian: "
                "dataset-fashion-mnist)",
                file=sys.stderr,
            )
            continue
        methods = part.methods
        if not set(methods).isdisjoint(CANDIDATES):
            validation = measurements.read(results / "validation")
            if not validation:
                raise RunError(f"{name} needs the λ chosen by the part validation; run that first.")
            methods = resolved(methods, select_weights(validation))
        run = replace(
            part.run,
            methods=methods,
            out=runs / ("common" if part.run == COMMON else name),
            data_root=data_root if needs_files else None,
            jobs=jobs,
        )
        metrics = small.execute(run)
        description = read_json(run.folder / "run.json")
        measurements.write(results / name, metrics | {key: description[key] for key in FACTS})
    found = {name: data for name in PARTS if (data := measurements.read(results / name))}
    if not found:
        raise RunError(f"{results} holds no data yet; run the study without --tables first.")
    weights = select_weights(found["validation"]) if "validation" in found else {}
    conclusions = results / "CONCLUSIONS.md"
    text = conclusions.read_text(encoding="utf-8") if conclusions.is_file() else ""
    page = results / "README.md"
    write_atomically(page, study_page.page(found, weights, text.strip()).encode())
    print(f"the page: {page}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    prog = "python -m reference_training.experiments.study"
    return exit_code(lambda: tyro.cli(execute, prog=prog, args=arguments), again=lambda: prog)


if __name__ == "__main__":
    sys.exit(main())
