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
from reference_training.reporting.measures import MEASURES, Errors, Measure, Results
from reference_training.reporting.paper_columns import paper_cell, paper_gain
from reference_training.reporting.statistics import RULE, Values, cell, gain


def table(
    experiment: Experiment,
    results: Mapping[str, Results],
    normalisers: Mapping[str, Mapping[str, Errors]],
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
    measures = [MEASURES[key] for key in experiment.columns]
    header = ["Row", "Network"]
    for measure in measures:
        header += [measure.heading(), "paper", *(["ours − paper"] if exact else ["Δ", "Δ paper"])]

    def measured(row: Row, measure: Measure) -> Values:
        return measure.by_seed(results.get(row.key, {}), normalisers.get(row.arch, {}))

    def paper(row: Row, measure: Measure) -> float | None:
        return printed(experiment.paper, row.key, measure.printed)

    rows = []
    for row in experiment.rows:
        first = next(other for other in experiment.rows if other.arch == row.arch)
        cells = [row.label, networks[row.arch]]
        for measure in measures:
            ours, theirs = measured(row, measure), paper(row, measure)
            cells += [cell(ours), paper_cell(theirs)]
            if exact:
                away = {} if theirs is None else {seed: at - theirs for seed, at in ours.items()}
                cells.append(cell(away, signed=True))
            elif row is first:
                cells += [ABSENT, ABSENT]
            else:
                lower = measure.lower_is_better
                cells.append(gain(ours, measured(first, measure), lower_is_better=lower))
                cells.append(paper_gain(theirs, paper(first, measure)))
        rows.append(tuple(cells))
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
        "Δ: difference to the first row of the same network; Δ paper: the same of the paper's "
        f"numbers. {RULE} Other data and other networks: compare the signs and the order.",
        "mCE is normalised by the vanilla network of the same seed; the paper's by AlexNet.",
    ]


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
