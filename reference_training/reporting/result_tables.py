"""A table of the paper made from results: ours, the paper's, and what each row gains.

On ImageNet the two can be compared number by number. On another dataset only the order of the rows
and their differences can, so the first row of each network is what the others are compared with,
seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reference_training.evaluation.adaptation import NONE
from reference_training.methods.trainings import method_of, network_of
from reference_training.paper.experiments import Experiment, Row
from reference_training.paper.results import PAPER, entry, printed
from reference_training.reporting.blocks import ABSENT, Table
from reference_training.reporting.measures import MEASURES, Errors, Results
from reference_training.reporting.statistics import RULE, cell, gain, number

Normalisers = Mapping[str, Mapping[str, Errors]]
"""{row's arch: {seed: the errors by corruption that mCE divides by}}."""


def table(
    experiment: Experiment,
    results: Mapping[str, Results],
    normalisers: Normalisers,
    *,
    networks: Mapping[str, str],
    dataset: str,
) -> Table:
    """A table of the paper.

    Args:
        experiment: whose rows those are.
        results: {row's key: its results}; rows without are marked as absent.
        normalisers: see `Normalisers`.
        networks: {row's arch: what it is on this dataset}.
        dataset: its name, for the caption.
    """
    exact = dataset == "imagenet"
    cells = _exact_cells if exact else _relative_cells
    header = ["Row", "Network"]
    for key in experiment.columns:
        title = MEASURES[key].heading()
        header += [title, "paper", *(["ours − paper"] if exact else ["Δ", "Δ paper"])]
    counts = sorted({len(found) for found in results.values()}) or [0]
    seeds = f"{counts[0]} seeds" if counts[0] != 1 else "one seed"
    return Table(
        header=tuple(header),
        rows=tuple(
            (row.label, networks[row.arch], *cells(experiment, row, results, normalisers))
            for row in experiment.rows
        ),
        caption=f"{experiment.title}; {dataset}, top-1 and mCE in %, mean ± sample standard "
        f"deviation over {seeds}",
        notes=(*_explanations(exact=exact), *notes(experiment)),
    )


def _explanations(*, exact: bool) -> Sequence[str]:
    if exact:
        return ["mCE is normalised by AlexNet's published errors, as the paper's."]
    return [
        "Δ: difference to the first row of the same network; Δ paper: the same of the paper's "
        f"numbers. {RULE} Other data and other networks: compare the signs and the order.",
        "mCE is normalised by the vanilla network of the same seed; the paper's by AlexNet.",
    ]


def _exact_cells(
    experiment: Experiment, row: Row, results: Mapping[str, Results], normalisers: Normalisers
) -> list[str]:
    """Of each column: ours, the paper's, and their difference."""
    cells = []
    for key in experiment.columns:
        measure = MEASURES[key]
        ours = measure.by_seed(results.get(row.key, {}), normalisers.get(row.arch, {}))
        theirs = printed(experiment.paper, row.key, measure.printed)
        away = {} if theirs is None else {seed: value - theirs for seed, value in ours.items()}
        cells += [cell(ours), _paper_cell(theirs), cell(away, signed=True)]
    return cells


def _relative_cells(
    experiment: Experiment, row: Row, results: Mapping[str, Results], normalisers: Normalisers
) -> list[str]:
    """Of each column: ours, the paper's, and what each gains on the first row of its network."""
    first = next(other for other in experiment.rows if other.arch == row.arch)
    errors = normalisers.get(row.arch, {})
    cells = []
    for key in experiment.columns:
        measure = MEASURES[key]
        ours, start = (measure.by_seed(results.get(at.key, {}), errors) for at in (row, first))
        theirs, base = (printed(experiment.paper, at.key, measure.printed) for at in (row, first))
        cells += [cell(ours), _paper_cell(theirs)]
        if row is first:
            cells += [ABSENT, ABSENT]
            continue
        cells.append(gain(ours, start, lower_is_better=measure.lower_is_better))
        if theirs is None or base is None:
            cells.append(ABSENT)
        else:
            cells.append(number(theirs - base, None, 2, signed=True))
    return cells


def _paper_cell(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}"


def notes(experiment: Experiment) -> list[str]:
    """Which rows are re-implementations, and from what; and doubts about the paper's numbers."""
    found = []
    doubts = list(PAPER.get(experiment.paper or "", {}).get("notes", []))
    for row in experiment.rows:
        trained, adaptation = network_of(method_of(row))
        sources = [trained.method.source, None if adaptation is NONE else adaptation.source]
        found += [f"{row.label}: {source}" for source in sources if source]
        theirs = entry(experiment.paper, row.key).get("notes", ())
        doubts += [f"{row.label}: {note}" for note in theirs]
    return [*dict.fromkeys(found), *(f"The paper's numbers: {doubt}" for doubt in doubts)]
