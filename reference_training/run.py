"""The command line: `python -m reference_training.run` trains, evaluates and reports.

With no argument it compares the columns of the paper's Table 5 on the embedded photographs.
`--help` lists every number of the recipe. A run that was killed continues when the same command
is given again.

`--experiment table1/ulfd` trains that row of the paper's tables on ImageNet instead; add `--plan`
to see what it costs, and `--help` for its own numbers.
"""

import argparse
import sys
import time
from typing import Any

import tyro

from reference_training import evaluate, full_scale, record, report, stages, workers
from reference_training.config import PRESETS, RECIPES, PaperRun, Run
from reference_training.corruptions import frost_source
from reference_training.data import load
from reference_training.errors import RunError
from reference_training.experiments import EXPERIMENTS
from reference_training.files import JsonLines, read_json, write_json
from reference_training.interrupt import Interrupted
from reference_training.methods import METHODS
from reference_training.networks import ResNet, describe
from reference_training.parallel import is_main


def parse(arguments: list[str] | None = None) -> Run | PaperRun:
    """The run that the command line asks for; the defaults depend on --dataset or --experiment."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--dataset", default="fashion-mnist-subset")
    first.add_argument("--experiment")
    first.add_argument("--recipe", default="paper")
    chosen, others = first.parse_known_args(arguments)
    if chosen.experiment is not None:
        return _parse_experiment(chosen.experiment, chosen.recipe, others)
    if chosen.dataset not in PRESETS:
        raise RunError(f"unknown dataset {chosen.dataset!r}; use one of {sorted(PRESETS)}.")
    return tyro.cli(
        Run,
        prog="python -m reference_training.run",
        default=PRESETS[chosen.dataset],
        args=arguments,
        description=__doc__,
    )


def _parse_experiment(name: str, recipe: str, arguments: list[str]) -> PaperRun:
    for option, value, known in (
        ("experiment", name, EXPERIMENTS),
        ("recipe", recipe, RECIPES),
    ):
        if value not in known:
            raise RunError(f"unknown {option} {value!r}; use one of {sorted(known)}.")
    return tyro.cli(
        PaperRun,
        prog=f"python -m reference_training.run --experiment {name}",
        default=PaperRun(experiment=name, recipe=EXPERIMENTS[name].recipe(RECIPES[recipe])),
        args=arguments,
        description=PaperRun.__doc__,
    )


def check(run: Run) -> None:
    """Raises RunError for what can be known to be wrong before anything is computed."""
    for name in run.methods:
        if name not in METHODS:
            raise RunError(f"unknown method {name!r}; use some of {sorted(METHODS)}.")
    if not run.methods or not run.seeds:
        raise RunError("nothing to do: give at least one of --methods and of --seeds.")
    if len(set(run.seeds)) < len(run.seeds) or len(set(run.methods)) < len(run.methods):
        raise RunError("a seed or a method is named twice; name each once.")
    for name, value in (
        ("--recipe.iterations", run.recipe.iterations),
        ("--recipe.batch-size", run.recipe.batch_size),
        ("--pretraining.iterations", run.pretraining.iterations),
        ("--pretraining.batch-size", run.pretraining.batch_size),
        ("--checkpoint-every", run.checkpoint_every),
        ("--evaluation-images", run.evaluation_images),
        ("--threads", run.threads),
        ("--jobs", 1 if run.jobs is None else run.jobs),
    ):
        if value < 1:
            raise RunError(f"{name} is {value}, but must be at least 1.")
    try:
        frost_source(run.frost)
    except (ValueError, FileNotFoundError) as error:
        raise RunError(f"--frost: {error}") from error
    try:  # whatever an option is wrong about shows when a step is built
        for name in run.methods:
            METHODS[name].make_step(ResNet(run.network, 10), run.recipe, run.uem)
    except ValueError as error:
        raise RunError(str(error)) from error


def evaluate_all(run: Run, pool: workers.Pool) -> list[dict[str, Any]]:
    """All lines of evaluation.jsonl; those that an earlier start wrote are not computed again."""
    lines = JsonLines(run.folder / "evaluation.jsonl")
    rows = lines.read()
    lines.keep(len(rows))  # drops a torn last line, to which the next would be glued
    missing = evaluate.SETS[len(rows) :]
    tasks = [pool.executor.submit(stages.measure_set, run, *one) for one in missing]
    for row in pool.results(tasks, skipped=len(rows)):
        lines.append(row)
        rows.append(row)
        if pool.link.stop.is_set():
            raise Interrupted
    return rows


def execute(run: Run) -> None:
    """Trains, evaluates and writes the report; continues what is already in the folder."""
    started = time.monotonic()
    check(run)
    dataset = load(run.dataset, run.data_root)
    network = ResNet(run.network, dataset.classes)
    uem = run.uem.spec(network.fc.in_features)
    description = record.describe(
        run,
        record.embedded(dataset),
        frost=frost_source(run.frost),
        network=describe(run.network),
        parameters={
            "network": sum(weight.numel() for weight in network.parameters()),
            "uem": uem.parameters(),
        },
        wall_seconds=0.0,
    )
    print(
        f"{dataset.description}: {len(dataset.train_labels)} training, "
        f"{min(run.evaluation_images, len(dataset.test_labels))} evaluation images\n"
        f"{describe(run.network)}; methods {', '.join(run.methods)}; seeds {run.seeds}\n"
        f"{stages.iterations(run)} iterations, then "
        f"{len(evaluate.SETS)} evaluation sets; into {run.folder}"
    )
    if run.dry_run:
        return

    path = run.folder / "run.json"
    if record.check_same_run(path, description):
        description["wall_seconds"] = read_json(path)["wall_seconds"]
        print(f"resuming the run in {run.folder}")
    before = description["wall_seconds"]
    write_json(path, description)
    try:
        with workers.pool(run.jobs, run.threads) as pool:
            submit = pool.executor.submit
            tasks = [submit(stages.train_seed, run, seed) for seed in run.seeds]
            pool.train(tasks, stages.iterations(run))
            rows = evaluate_all(run, pool)
    finally:
        description["wall_seconds"] = round(before + time.monotonic() - started, 1)
        write_json(path, description)
    metrics = {
        "dataset": dataset.name,
        "evaluation_images": len(evaluate.test_images(dataset, run.evaluation_images)[1]),
        "seeds": list(run.seeds),
        "methods": list(run.methods),
        "results": {
            method: {str(seed): evaluate.summarise(rows, f"{method}/{seed}") for seed in run.seeds}
            for method in run.methods
        },
    }
    write_json(run.folder / "metrics.json", metrics)
    report.write_report(run.folder, example=dataset.test_images[0])
    print(report.terminal_table(metrics, description))
    print(f"report: {run.folder / 'report.html'}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    try:
        run = parse(arguments)
        if isinstance(run, PaperRun):
            full_scale.execute(run)
        else:
            execute(run)
    except RunError as error:
        if is_main():  # the other ranks say the same
            print(f"error: {error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt) as error:
        if is_main():
            again = record.command(arguments)
            why = f"{error}" or "interrupted"
            print(f"\n{why}, everything is saved; continue with: {again}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
