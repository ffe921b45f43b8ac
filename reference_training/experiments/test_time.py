"""What σ buys at test time: `python -m reference_training.experiments.test_time --run FOLDER ...`.

Pooling, rejecting, views and two networks, each against what needs no UEM: the definitions and the
rule are in results/PLAN_PHOTOGRAPHS.md, the tables in `reporting.test_time_page`.
"""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro
from torch import Tensor

from reference_training.config import SmallRun
from reference_training.corruptions import SEVERITIES
from reference_training.data import load
from reference_training.data.samples import EvaluationSet
from reference_training.evaluation.adaptation import NONE
from reference_training.evaluation.sets import SETS
from reference_training.evaluation.test_time import Record, alone, measures, of_two, say, views
from reference_training.evaluation.trained import degraded
from reference_training.experiments import stages
from reference_training.methods.trainings import canonical, network_of
from reference_training.reporting import test_time_page
from reference_training.runtime.command import exit_code
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import (
    DAMAGED,
    read_json,
    reading,
    write_atomically,
    write_json,
)
from reference_training.runtime.workers import bar
from reference_training.training import record

LABELS = ("run", "method", "seed")
Row = dict[str, Any]
"""Of the CSV: `LABELS`, then {"measure @ place": in %}."""
Network = tuple[str, int]


def finished(run: SmallRun, methods: tuple[str, ...]) -> list[Network]:
    """The networks, of these methods or else of all, with a UEM and trained to their end."""
    found = []
    for method, seed in ((method, seed) for method in methods or run.methods for seed in run.seeds):
        wanted, adaptation = network_of(method)
        whole = stages.done(run, seed, wanted) == stages.schedule_of(run, wanted).iterations
        if whole and adaptation is NONE and stages.trained(run, seed, method).uem is not None:
            found.append((method, seed))
    return found


def measure(
    folder: Path, methods: tuple[str, ...], severities: tuple[int, ...], images: int
) -> tuple[list[Row], dict[str, Any]]:
    """A row for each network of the run in this folder, and what was measured on.

    Raises:
        RunError: it holds no run, one of another version or of other data, or no finished network.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise RunError(f"{folder} holds no run; give the folder of `reference_training.run`.")
    with reading(path, "is not of this version", "Use the version of ulfd that wrote it"):
        description = read_json(path)
        run = replace(record.restored(SmallRun, description["config"]), out=folder)
    dataset = load(run.dataset, run.data_root, run.side)
    record.check_same_run(path, {**description, "dataset": dataset.describe()})
    run = replace(run, evaluation_images=images)
    networks = finished(run, tuple(map(canonical, methods)))
    if not networks:
        raise RunError(f"{folder} has no finished network with a UEM among --methods {methods}.")
    test = stages.evaluated(run)
    sets = [which for which in SETS if which[1] in (0, *severities)]
    records: dict[Network, Record] = {network: {} for network in networks}
    usual: dict[Network, float] = {}
    with bar(len(sets) * len(networks), "network", folder.name) as progress:
        for which in sets:
            shown = views(degraded(test.test_images, *which, run.frost), dataset.flips)
            first = {}
            for method, seed in networks:
                network = stages.trained(run, seed, method)
                said = [say(network, view) for view in shown]
                first[method, seed] = said[0]
                usual.setdefault((method, seed), float(said[0].theta.mean()))  # clean comes first
                predicted, scores = alone(said)
                _keep(records[method, seed], which, predicted, scores, test.test_labels)
                progress.update(1)
            for one, other in pairs(networks):
                predicted = of_two((first[one], first[other]), (usual[one], usual[other]))
                _keep(records[one], which, predicted, {}, test.test_labels)
    rows = [
        {"run": folder.name, "method": method, "seed": seed, **measures(found)}
        for (method, seed), found in records.items()
    ]
    facts = {"images": len(test.test_labels), "severities": list(severities)}
    return rows, facts | {key: description[key] for key in ("git", "versions")}


def pairs(networks: Sequence[Network]) -> list[tuple[Network, Network]]:
    """Networks of one method by neighbouring seeds, the last with the first."""
    by_method: dict[str, list[Network]] = {}
    for network in networks:
        by_method.setdefault(network[0], []).append(network)
    ring = [(own, (*own[1:], own[0])) for own in by_method.values() if len(own) > 2]
    return [pair for own, others in ring for pair in zip(own, others, strict=True)]


def _keep(found: Record, which: EvaluationSet, predicted: Any, scores: Any, labels: Tensor) -> None:
    right = {name: logits.argmax(1) == labels for name, logits in predicted.items()}
    for name, value in {**right, **scores}.items():
        found.setdefault(name, []).append((which, value.numpy()))


def write(out: Path, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Writes the CSV, a row for each network, and the JSON file beside it."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(
        {name: f"{v:.2f}" if isinstance(v, float) else v for name, v in row.items()} for row in rows
    )
    write_atomically(out, text.getvalue().encode())
    write_json(out.with_suffix(".json"), facts)


def read(out: Path) -> tuple[list[Row], dict[str, Any]]:
    """What `write` wrote, if there is any."""
    if not out.is_file():
        return [], {}
    with reading(out, *DAMAGED):
        rows: list[Row] = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
        for row in rows:
            row |= {k: float(v) for k, v in row.items() if v and k not in LABELS}
    return rows, read_json(out.with_suffix(".json"))


def execute(
    run: tuple[Path, ...] = (),
    methods: tuple[str, ...] = (),
    severities: tuple[int, ...] = SEVERITIES,
    images: int = 300,
    out: Path = Path("results/test_time.csv"),
) -> None:
    """Measures the finished networks of runs, keeps the numbers, and makes the page.

    Args:
        run: Folders of `reference_training.run`; none makes only the page again.
        methods: Which of their networks; by default all with a UEM.
        severities: Which of the corruptions' severities.
        images: Test images of each set.
        out: The CSV, where other runs stay as they are, with a JSON file of facts beside it; the
            page is TEST_TIME.md beside both.
    """
    rows, facts = read(out)
    for folder in run:
        own, said = measure(folder, methods, severities, images)
        rows = [row for row in rows if row["run"] != folder.name] + own
        facts = {**facts, folder.name: said}
        write(out, rows, facts)
    rows, facts = read(out)  # as rounded as anyone has them
    if not rows:
        raise RunError(f"{out} holds no data yet; name finished runs with --run.")
    write_atomically(out.with_name("TEST_TIME.md"), test_time_page.page(rows, facts).encode())


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    prog = "python -m reference_training.experiments.test_time"
    return exit_code(lambda: tyro.cli(execute, prog=prog, args=arguments))


if __name__ == "__main__":
    sys.exit(main())
