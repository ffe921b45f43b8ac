"""The command line: `python -m reference_training.run` trains, evaluates and reports.

With no argument it compares, on the embedded photographs, cross entropy, the MSE and ULFD, the last
by this library's UEM and by the paper's.
`--help` lists every number of the recipe. A run that was killed continues when the same command
is given again.

`--experiment table5` makes a table or figure of the paper on a small dataset, `--experiment all`
the whole paper, `--list` shows what there is. `--experiment table1/ulfd` trains that row on
ImageNet instead; add `--plan` to see what it costs, and `--help` for its own numbers.
"""

import argparse
import sys

import tyro

from reference_training.config import (
    OWN_NETWORK,
    RECIPES,
    ImageNetRun,
    PaperTables,
    SmallRun,
    UEMOptions,
)
from reference_training.experiments import small
from reference_training.methods.trainings import training
from reference_training.paper.experiments import ALL, EXPERIMENTS, ROWS
from reference_training.paper.recipes import OWN, recipe_of
from reference_training.presets import PRESETS, fine_tuned
from reference_training.runtime.command import exit_code
from reference_training.runtime.errors import RunError
from reference_training.training import record

IMAGENET = "imagenet"
SMALL = "fashion-mnist-subset"
PROGRAM = "python -m reference_training.run"


def parse(
    arguments: list[str] | None = None,
) -> SmallRun | PaperTables | ImageNetRun | list[ImageNetRun]:
    """What the command line asks for; the defaults depend on --dataset and --experiment.

    Returns:
        A comparison, tables of the paper on a small dataset, or the networks of a row or table of
        the paper on ImageNet.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--dataset")
    first.add_argument("--experiment")
    first.add_argument("--recipe", default=OWN)
    first.add_argument("--network", default=OWN_NETWORK)
    first.add_argument("--list", action="store_true")
    known, others = first.parse_known_args(arguments)
    name = known.experiment
    if name not in (None, ALL, *EXPERIMENTS, *ROWS):
        raise RunError(
            f"unknown experiment {name!r}; use one of {', '.join(EXPERIMENTS)}, all, or one of "
            "their rows, as table1/ulfd; --list shows them."
        )
    dataset = known.dataset or (IMAGENET if name in ROWS and not known.list else SMALL)
    if dataset == IMAGENET and name in ROWS:
        return _parse_experiment(name, known.recipe, others)
    if dataset == IMAGENET and name is not None:
        from reference_training.experiments import imagenet_tables

        rows = imagenet_tables.rows(name)
        return [_parse_experiment(row, known.recipe, others) for row in rows]
    if dataset not in PRESETS:
        raise RunError(f"unknown dataset {dataset!r}; use one of {sorted(PRESETS)}.")
    if name is not None or known.list:
        default = PaperTables(name or ALL, dataset)
        description = PaperTables.__doc__
        return tyro.cli(
            PaperTables, prog=PROGRAM, default=default, args=arguments, description=description
        )
    preset = PRESETS[dataset]
    if known.network != OWN_NETWORK:
        preset = fine_tuned(preset)
    return tyro.cli(SmallRun, prog=PROGRAM, default=preset, args=arguments, description=__doc__)


def _parse_experiment(name: str, recipe: str, arguments: list[str]) -> ImageNetRun:
    if recipe not in (OWN, *RECIPES):
        raise RunError(f"unknown recipe {recipe!r}; use one of {', '.join((OWN, *RECIPES))}.")
    row = ROWS[name]
    trained, by = training(row.training), recipe_of(row.training, recipe)
    return tyro.cli(
        ImageNetRun,
        prog=f"{PROGRAM} --experiment {name}",
        default=ImageNetRun(
            experiment=name,
            arch=row.arch,
            recipe=trained.recipe(by.recipe),
            uem=trained.uem(UEMOptions()),
            weights=by.weights if trained.method.pretrained else "random",
        ),
        args=arguments,
        description=ImageNetRun.__doc__,
    )


def execute(arguments: list[str] | None) -> int | None:
    """Does what the command line asks for; returns the exit code of other processes that did it."""
    run = parse(arguments)
    if isinstance(run, SmallRun):
        small.execute(run)
        return None
    # What only tables and full-scale runs need is slow to import, and a launcher needs none of it.
    if isinstance(run, PaperTables):
        from reference_training.experiments import small_tables

        small_tables.execute(run)
        return None
    from reference_training.runtime import launch

    runs = run if isinstance(run, list) else [run]
    if not runs[0].plan:
        code = launch.start("reference_training.run", arguments, runs[0].processes)
        if code is not None:
            return code
    from reference_training.experiments import imagenet, imagenet_tables

    if isinstance(run, list):
        imagenet_tables.execute(run)
    else:
        imagenet.execute(run)
    return None


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return exit_code(lambda: execute(arguments), lambda: record.command(arguments))


if __name__ == "__main__":
    sys.exit(main())
