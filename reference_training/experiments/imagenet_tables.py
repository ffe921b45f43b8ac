"""A whole table of the paper on ImageNet: trains and evaluates its networks one after another.

Every network is a run of its own (`full_scale`), continued where it was left; what two tables need
is trained once. Give the same command again until all are done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reference_training.config import ImageNetRun
from reference_training.evaluation.adaptation import NONE
from reference_training.evaluation.corruption_error import ALEXNET
from reference_training.experiments import imagenet
from reference_training.experiments.job import STAGES, resolve
from reference_training.methods.trainings import training
from reference_training.paper.experiments import EXPERIMENTS, ROWS, Row
from reference_training.reporting.blocks import Block, Heading, html_document, markdown_document
from reference_training.reporting.measures import Json, Results
from reference_training.reporting.result_tables import table
from reference_training.runtime import ranks
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json, write_atomically
from reference_training.training import export

OUT = Path("runs") / "paper-imagenet"


def rows(name: str) -> list[str]:
    """The rows of a table, or of all of them, as "table1/ulfd", after the stages that they need.

    A network of several tables goes by its first row, so that another table finds it trained.
    """
    wanted = EXPERIMENTS if name == "all" else (name,)
    first = {(row.training, row.arch): one for one, row in reversed([*ROWS.items()])}
    networks = [row for table in wanted for row in EXPERIMENTS[table].rows]
    needed = (training(row.training).method.needs for row in networks)
    stages = [f"{STAGES}{need}" for need in needed if need is not None]
    return list(dict.fromkeys([*stages, *(first[row.training, row.arch] for row in networks)]))


def execute(runs: Sequence[ImageNetRun]) -> None:
    """Trains and evaluates each network, and writes the tables of which all rows are there.

    Raises:
        RunError: a network is not the table's.
    """
    for run in runs:
        if run.arch != ROWS[run.experiment].arch:
            raise RunError(
                f"--arch {run.arch} is not the network of the row {run.experiment}, so no table "
                f"of the paper could be written; leave it out, or train that row alone, with "
                f"--experiment {run.experiment}."
            )
    given = runs[0].out
    runs = [_placed(run, runs) for run in runs]
    for run in runs:
        stage = run.experiment.startswith(STAGES)  # in no table, so nobody asks how good it is
        imagenet.execute(replace(run, evaluate=not (run.plan or stage)))
    if runs[0].plan or not ranks.is_main():
        return
    out = OUT if given is None else given
    trained = {(ROWS[run.experiment].training, run.arch): run for run in runs}
    for name, experiment in EXPERIMENTS.items():
        ready = {row.key: _results(row, trained) for row in experiment.rows}
        if not experiment.columns or not all(ready.values()):
            continue
        everyone = {seed: ALEXNET.errors for results in ready.values() for seed in results}
        made = table(
            experiment,
            ready,
            {row.arch: everyone for row in experiment.rows},
            networks={row.arch: row.arch for row in experiment.rows},
            dataset="imagenet",
        )
        print("\n" + made.terminal())
        blocks: list[Block] = [Heading(experiment.title, 1), made]
        write_atomically(out / f"{name}.md", markdown_document(blocks).encode())
        write_atomically(out / f"{name}.html", html_document(experiment.title, blocks).encode())


def _placed(run: ImageNetRun, runs: Sequence[ImageNetRun]) -> ImageNetRun:
    """The run in a folder of its own, with the weights of the stage that it needs."""
    if run.out is not None:
        run = replace(run, out=run.out / replace(run, out=None).folder.name)
    stage = resolve(run).stage
    if stage is None or run.needed is not None:
        return run
    stage = next(other for other in runs if other.experiment == stage.experiment)
    return replace(run, needed=_placed(stage, runs).folder / "export" / export.MODEL)


def _results(row: Row, trained: Mapping[tuple[str, str], ImageNetRun]) -> Results:
    """{seed: accuracies}, as `result_tables` reads them; nothing if the network is not there."""
    run = trained.get((row.training, row.arch))
    adaptation = row.adaptation or NONE.name
    whole = {} if run is None else _accuracies(run, adaptation, few=False)
    if run is None or not whole:
        return {}
    return {str(run.seed): whole | {"subset": _accuracies(run, adaptation, few=True)}}


def _accuracies(run: ImageNetRun, adaptation: str, *, few: bool) -> dict[str, Any]:
    path = imagenet.evaluation_folder(run, adaptation, few=few) / "result.json"
    if not path.is_file():
        return {}
    top1: Mapping[str, Json] = read_json(path)["top1"]
    # The official test squashes clean images to the input size.
    squashed = next((at for name, at in top1["clean"].items() if "squash" in name), None)
    return {"clean": squashed, "corruptions": top1["corruptions"]}
