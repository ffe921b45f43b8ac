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

from reference_training.data.folders import PHOTOGRAPHS
from reference_training.evaluation import measurements
from reference_training.experiments import small
from reference_training.methods.trainings import canonical
from reference_training.paper.study import (
    COMMON,
    PARTS,
    SHOW_UNCERTAINTY,
    Candidates,
    Part,
    with_lambda,
)
from reference_training.reporting import study_page
from reference_training.reporting.measures import MEASURES
from reference_training.runtime.command import exit_code
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json, write_atomically

FILES = {"fashion-mnist", *PHOTOGRAPHS}
"""Datasets that are files on this machine."""
FACTS = "versions git frost parameters wall_seconds".split()
"""What is kept of run.json."""


def select_weights(validation: Mapping[str, Any], candidates: Candidates) -> dict[str, float]:
    """{candidate: the λ with the best mean seen top-1}, from the data of a part that chooses."""

    def score(name: str) -> float:
        results = validation["results"][canonical(name)]
        return fmean(MEASURES["seen"].by_seed(results).values())

    return {
        candidate: max(weights, key=lambda weight: score(with_lambda(name, weight)))
        for candidate, (name, weights) in candidates.items()
    }


def resolved(part: Part, results: Path) -> tuple[str, ...]:
    """The part's methods, with the chosen λ in the place of the candidates' names.

    Raises:
        RunError: λ were not chosen yet.
    """
    if set(part.methods).isdisjoint(part.candidates):
        return part.methods
    validation = measurements.read(results / part.chosen_by)
    if not validation:
        raise RunError(f"this part needs the λ chosen by {part.chosen_by}; run that first.")
    weights = select_weights(validation, part.candidates)
    methods = (
        with_lambda(part.candidates[name][0], weights[name]) if name in weights else name
        for name in part.methods
    )
    return tuple(dict.fromkeys(map(canonical, methods)))


def folders_of(data: Sequence[str]) -> dict[str, Path]:
    """{dataset: its folder} from "dataset=folder" each."""
    pairs = [entry.partition("=")[::2] for entry in data]
    wrong = [name for name, folder in pairs if name not in FILES or not Path(folder).is_dir()]
    if wrong:
        raise RunError(
            f"--data names {wrong}; give {', '.join(sorted(FILES))} each as NAME=FOLDER, where "
            "the folder exists."
        )
    return {name: Path(folder) for name, folder in pairs}


def execute(
    parts: tuple[str, ...] = tuple(PARTS),
    results: Path = Path("results"),
    runs: Path = Path("runs/study"),
    data: tuple[str, ...] = (),
    seeds: tuple[int, ...] | None = None,
    jobs: int | None = None,
    tables: bool = False,
) -> None:
    """Runs the parts of the study, keeps their data, and makes the page.

    Args:
        parts: Which parts, in this order.
        results: Receives the data of each part, and the page.
        runs: Keeps the networks, from which a killed study continues.
        data: The folders of datasets that are not embedded, as cifar10=/data/cifar10.
        seeds: Instead of the parts' own, for a first look.
        jobs: Worker processes; all cores by default.
        tables: Only make the page again, from the data that is there.
    """
    if unknown := set(parts) - set(PARTS):
        raise RunError(f"unknown parts {sorted(unknown)}; use some of {list(PARTS)}.")
    folders = folders_of(data)
    for name in () if tables else parts:
        part = PARTS[name]
        dataset = part.run.dataset
        if dataset in FILES and dataset not in folders:
            print(f"left out: {name} needs --data {dataset}=FOLDER", file=sys.stderr)
            continue
        run = replace(
            part.run,
            methods=resolved(part, results),
            seeds=seeds or part.run.seeds,
            out=runs / ("common" if part.run == COMMON else name),
            data_root=folders.get(dataset),
            jobs=jobs,
        )
        metrics = small.execute(run)
        description = read_json(run.folder / "run.json")
        measurements.write(
            results / name,
            metrics | {key: description[key] for key in FACTS},
            uncertainty=name in SHOW_UNCERTAINTY,
        )
    found = {name: kept for name in PARTS if (kept := measurements.read(results / name))}
    if not found:
        raise RunError(f"{results} holds no data yet; run the study without --tables first.")
    choosers = {part.chosen_by: part.candidates for part in PARTS.values()}
    weights = {
        name: select_weights(found[name], candidates)
        for name, candidates in choosers.items()
        if name in found
    }
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
