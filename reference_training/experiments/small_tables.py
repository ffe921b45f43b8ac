"""The paper's tables and figures on a small dataset; see `PaperTables`.

Each of the paper's two backbones has a small network in its place, and each small network one run,
whose folder keeps every training: what two tables need is trained once.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from reference_training.config import PaperTables, SmallRun
from reference_training.corruptions import frost_source
from reference_training.data.pairs import normalised
from reference_training.evaluation.trained import batch_size
from reference_training.experiments import small, stages
from reference_training.experiments.paper_figures import FIGURES, Material
from reference_training.methods.base import VANILLA
from reference_training.methods.trainings import method_of, training
from reference_training.networks.resnet import describe
from reference_training.paper.experiments import ALL, EXPERIMENTS, RESNET50, ROWS, Experiment, Row
from reference_training.presets import BUDGETS, PRESETS
from reference_training.reporting.blocks import Block, Code, Heading, Table
from reference_training.reporting.measures import Json, vanilla_errors
from reference_training.reporting.pages import write_page
from reference_training.reporting.result_tables import table
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import write_json
from reference_training.training import record


def select_experiments(name: str) -> dict[str, Experiment]:
    """The experiments that a name stands for: one, one row of one, or all.

    Raises:
        RunError: an unknown name.
    """
    if name == ALL:
        return dict(EXPERIMENTS)
    whole, _, row = name.partition("/")
    if whole not in EXPERIMENTS or (row and name not in ROWS):
        near = sorted(ROWS) if whole in EXPERIMENTS else [*EXPERIMENTS, ALL]
        raise RunError(f"unknown experiment {name!r}; use one of {', '.join(near)}, see --list.")
    experiment = EXPERIMENTS[whole]
    return {whole: replace(experiment, rows=(ROWS[name],)) if row else experiment}


def runs_of(request: PaperTables, experiments: Mapping[str, Experiment]) -> dict[str, SmallRun]:
    """{the paper's backbone: the run of the small network in its place}."""
    if request.budget not in BUDGETS:
        raise RunError(f"unknown budget {request.budget!r}; use one of {sorted(BUDGETS)}.")
    preset = replace(PRESETS[request.dataset], **BUDGETS[request.budget])
    rows = [row for experiment in experiments.values() for row in experiment.rows]
    runs = {}
    for arch in dict.fromkeys(row.arch for row in rows):
        deeper = 0 if arch == RESNET50 else 1
        network = replace(preset.network, blocks=preset.network.blocks + deeper)
        methods = [VANILLA, *(method_of(row) for row in rows if row.arch == arch)]
        runs[arch] = replace(
            preset,
            methods=tuple(dict.fromkeys(methods)),
            seeds=request.seeds or preset.seeds,
            network=network,
            frost=request.frost,
            data_root=request.data_root,
            jobs=request.jobs,
            out=request.folder / f"in-place-of-{arch}",
        )
    return runs


def execute(request: PaperTables) -> None:
    """Trains and evaluates what is not there yet, and writes every table and figure asked for."""
    if request.list:
        print(listing(request))
        return
    experiments = select_experiments(request.experiment)
    runs = runs_of(request, experiments)
    metrics = {arch: small.execute(run) for arch, run in runs.items()}
    for name, experiment in experiments.items():
        folder = request.folder / name
        blocks: list[Block] = [Heading(experiment.title, 1)]
        if experiment.columns:
            made = _table(experiment, runs, metrics, request.dataset)
            write_json(folder / "table.json", {"header": made.header, "rows": made.rows})
            print("\n" + made.terminal())
            blocks.append(made)
        if experiment.figure is not None:
            drawn = FIGURES[experiment.figure].draw(experiment, _material(runs[RESNET50]))
            write_json(folder / "figure.json", drawn.numbers)
            blocks += drawn.blocks
        blocks += [Heading("Make it again"), Code(record.command())]
        write_page(folder / "page", experiment.title, blocks)
        print(f"{name}: {folder / 'page.html'}")


def _material(run: SmallRun) -> Material:
    """What figures are drawn from: the networks of the run's first seed, all its test images."""
    images, seed = stages.evaluated(run).test_images, run.seeds[0]
    return Material(
        network=lambda row: stages.trained(run, seed, method_of(row)),
        vanilla=lambda: stages.trained(run, seed, VANILLA).model,
        data=stages.evaluation_data(run),
        preprocess=normalised,
        evaluated=torch.arange(len(images)),
        sample=torch.arange(len(images)),
        batch=batch_size(images),
        seed=seed,
    )


def _table(
    experiment: Experiment, runs: Mapping[str, SmallRun], metrics: Mapping[str, Json], dataset: str
) -> Table:
    results = {row.key: metrics[row.arch]["results"][method_of(row)] for row in experiment.rows}
    normalisers = {arch: vanilla_errors(found) for arch, found in metrics.items()}
    names = {arch: describe(run.network) for arch, run in runs.items()}
    said = [f"Frost overlays: {frost_source(run.frost)}." for run in runs.values()][:1]
    return table(experiment, results, normalisers, networks=names, dataset=dataset, said=said)


def listing(request: PaperTables) -> str:
    """Every row of every table and figure: how it is trained, what is done, what is left to do."""
    lines = []
    for name, experiment in EXPERIMENTS.items():
        runs = runs_of(request, {name: experiment})
        lines += ["", f"{name}: {experiment.title}"]
        for row in experiment.rows:
            lines.append(f"  {_line(name, row, runs[row.arch])}")
    lines += ["", f"folder: {request.folder}; a name above, or all, goes after --experiment"]
    return "\n".join(lines)


def _line(name: str, row: Row, run: SmallRun) -> str:
    wanted = training(row.training)
    full = stages.schedule_of(run, wanted).iterations
    done = [stages.done(run, seed, wanted) for seed in run.seeds]
    ready = sum(count >= full for count in done)
    state = f"{ready} of {len(done)} seeds trained"
    left = sum(max(0, full - count) for count in done)
    cost = f", {left} iterations to do" if left else ""
    return f"{name + '/' + row.key:42} {method_of(row):48} {state}{cost}"
