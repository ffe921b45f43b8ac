"""The command line: `python -m reference_training.run` trains, evaluates and reports.

With no argument it compares the columns of the paper's Table 5 on the embedded photographs.
`--help` lists every number of the recipe. A run that was killed continues when the same command
is given again.

`--experiment table1/ulfd` trains that row of the paper's tables on ImageNet instead; add `--plan`
to see what it costs, and `--help` for its own numbers.
"""

import argparse
import sys

import tyro

from reference_training import full_scale, record, small_scale
from reference_training.config import PRESETS, RECIPES, PaperRun, Run, UEMOptions
from reference_training.errors import RunError
from reference_training.experiments import ROWS
from reference_training.interrupt import Interrupted
from reference_training.parallel import is_main
from reference_training.trainings import training


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
        ("experiment", name, ROWS),
        ("recipe", recipe, RECIPES),
    ):
        if value not in known:
            raise RunError(f"unknown {option} {value!r}; use one of {sorted(known)}.")
    row = ROWS[name]
    one = training(row.training)
    return tyro.cli(
        PaperRun,
        prog=f"python -m reference_training.run --experiment {name}",
        default=PaperRun(
            experiment=name,
            arch=row.arch,
            recipe=one.recipe(RECIPES[recipe]),
            uem=one.uem(UEMOptions()),
            weights=PaperRun.weights if one.method.pretrained else "random",
        ),
        args=arguments,
        description=PaperRun.__doc__,
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    try:
        run = parse(arguments)
        if isinstance(run, PaperRun):
            full_scale.execute(run)
        else:
            small_scale.execute(run)
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
