"""A table of the paper made from results: ours, the paper's, and what each row gains.

On ImageNet the two can be compared number by number. On another dataset only the order of the rows
and their differences can, so the first row of each network is what the others are compared with,
seed by seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from reference_training.evaluation import corruption_error as ce
from reference_training.evaluation.adaptation import NONE
from reference_training.methods.trainings import method_of, network_of
from reference_training.paper.experiments import Experiment, Row
from reference_training.paper.results import PAPER
from reference_training.reporting.blocks import ABSENT, Table
from reference_training.reporting.statistics import RULE, cell, gain

Json = Mapping[str, Any]
Results = Mapping[str, Json]
"""{seed: a network's part of metrics.json}."""


@dataclass(frozen=True)
class Column:
    """A number of a network, in %."""

    title: str
    measure: Callable[[Json, Json], float]
    """(result, the normaliser's errors by corruption) to a fraction."""
    printed: tuple[str, ...]
    """What paper_results.json may call it."""


def _corruption(name: str) -> Column:
    title = f"{name.replace('_', ' ')} ↑"
    return Column(title, lambda result, _: fmean(result["corruptions"][name]), (name,))


COLUMNS: Mapping[str, Column] = {
    "clean": Column("clean ↑", lambda result, _: result["clean"], ("hq", "clean")),
    "seen": Column(
        "seen ↑",
        lambda result, _: ce.seen_accuracy(result["corruptions"]),
        ("seen", "top1", "original"),
    ),
    "seen_subset": Column(
        "seen, on few images ↑",
        lambda result, _: ce.seen_accuracy(result["subset"]["corruptions"]),
        ("subset",),
    ),
    "unseen": Column(
        "unseen ↑", lambda result, _: ce.unseen_accuracy(result["corruptions"]), ("unseen",)
    ),
    "mce": Column(
        "mCE ↓",
        lambda result, errors: ce.normalised_corruption_error(
            ce.errors_of(result["corruptions"]), errors
        ),
        ("mce",),
    ),
    **{
        name: _corruption(name)
        for name in ("speckle_noise", "gaussian_blur", "spatter", "saturate")
    },
}


def printed(experiment: Experiment, row: Row, column: Column) -> float | None:
    """The paper's number in %, if it has one."""
    rows = PAPER.get(experiment.paper or "", {}).get("rows", [])
    for entry in rows:
        if entry["row"] == row.key:
            return next((entry[name] for name in column.printed if name in entry), None)
    return None


def values(column: Column, results: Results, normaliser: Mapping[str, Json]) -> dict[str, float]:
    """{seed: the number in %}, of the seeds for which there is a normaliser."""
    return {
        seed: 100 * column.measure(result, normaliser[seed])
        for seed, result in results.items()
        if seed in normaliser
    }


def table(
    experiment: Experiment,
    results: Mapping[str, Results],
    normalisers: Mapping[str, Mapping[str, Json]],
    *,
    networks: Mapping[str, str],
    dataset: str,
) -> Table:
    """A table of the paper.

    Args:
        experiment: whose rows those are.
        results: {row's key: its results}; rows without are marked as absent.
        normalisers: {row's arch: {seed: the errors by corruption that mCE divides by}}.
        networks: {row's arch: what it is on this dataset}.
        dataset: its name, for the caption.
    """
    exact = dataset == "imagenet"
    header = ["Row", "Network"]
    for key in experiment.columns:
        title = COLUMNS[key].title
        header += [title, "paper", "ours − paper" if exact else "Δ"]
        header += [] if exact else ["Δ paper"]
    rows = [
        (row.label, networks[row.arch], *_cells(experiment, row, results, normalisers, exact=exact))
        for row in experiment.rows
    ]
    counts = sorted({len(found) for found in results.values()}) or [0]
    seeds = f"{counts[0]} seeds" if counts[0] != 1 else "one seed"
    return Table(
        header=tuple(header),
        rows=tuple(rows),
        caption=f"{experiment.title}; {dataset}, top-1 and mCE in %, mean ± sample standard "
        f"deviation over {seeds}",
        notes=(*_explanations(exact=exact), *notes(experiment)),
    )


def _explanations(*, exact: bool) -> Sequence[str]:
    if exact:
        return ["mCE is normalised by AlexNet's published errors, as the paper's."]
    return [
        "Δ: difference to the first row of the same network, Δ paper: the same of the paper's "
        f"numbers. {RULE} Other data and other networks: compare the signs and the order.",
        "mCE is normalised by the vanilla network of the same seed; the paper's by AlexNet.",
    ]


def _cells(
    experiment: Experiment,
    row: Row,
    results: Mapping[str, Results],
    normalisers: Mapping[str, Mapping[str, Json]],
    *,
    exact: bool,
) -> list[str]:
    first = next(other for other in experiment.rows if other.arch == row.arch)
    cells = []
    for key in experiment.columns:
        column = COLUMNS[key]
        ours = values(column, results.get(row.key, {}), normalisers.get(row.arch, {}))
        theirs = printed(experiment, row, column)
        cells += [cell(ours), ABSENT if theirs is None else f"{theirs:.2f}"]
        if exact:
            both = {} if theirs is None else {seed: at - theirs for seed, at in ours.items()}
            cells.append(cell(both, signed=True))
            continue
        before = values(column, results.get(first.key, {}), normalisers.get(row.arch, {}))
        start = printed(experiment, first, column)
        known = theirs is not None and start is not None and row is not first
        lower = column.title.endswith("↓")
        cells.append(ABSENT if row is first else gain(ours, before, lower_is_better=lower))
        cells.append(f"{theirs - start:+.2f}".replace("-", "−") if known else ABSENT)  # type: ignore[operator]
    return cells


def notes(experiment: Experiment) -> list[str]:
    """Which rows are re-implementations, and from what; and doubts about the paper's numbers."""
    found = []
    for row in experiment.rows:
        trained, adaptation = network_of(method_of(row))
        sources = [trained.method.source]
        sources += [] if adaptation is NONE else [adaptation.source]
        found += [f"{row.label}: {source}" for source in sources if source]
    paper = PAPER.get(experiment.paper or "", {})
    doubts = list(paper.get("notes", []))
    for entry in paper.get("rows", []):
        named = next((row.label for row in experiment.rows if row.key == entry["row"]), "")
        doubts += [f"{named}: {note}" for note in entry.get("notes", [])]
    return [*dict.fromkeys(found), *(f"The paper's numbers: {doubt}" for doubt in doubts)]
