"""A table of the paper made from results: ours, the paper's, and what each row gains.

On ImageNet the two can be compared number by number. On another dataset only the order of the rows
and their differences can, so the first row of each network is what the others are compared with,
seed by seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from reference_training.evaluation.adaptation import NONE
from reference_training.evaluation.sets import DRAWS, SUBSET
from reference_training.methods.trainings import method_of, network_of
from reference_training.paper.experiments import EXPERIMENTS, RESNET50, Experiment, Row
from reference_training.paper.results import PAPER, entry, printed
from reference_training.reporting.blocks import ABSENT, Table
from reference_training.reporting.measures import MEASURES, Errors, Measure, Results
from reference_training.reporting.statistics import RULE, Values, cell, gain, number

# A printed number of a method is looked for in this order.
TABLES = ("table1", "table5", "table6a", "table3")
COLUMNS = ("clean", "seen", "unseen", "mce")
PREFIX = "Paper: "
NOTE = (
    "Paper: Tables 1, 3, 5 and 6a, on ImageNet with ResNet-50, mCE normalised by AlexNet. Other "
    "data, another network, another normaliser: compare the order of the rows, not the values. "
    "Seen of cross entropy is Table 6a's λ = 0; in words, Table 5's first row was fine-tuned on "
    "degraded images only."
)
BESIDE = {
    "number": ("paper", "ours − paper"),
    "order": ("paper", "Δ", "Δ paper"),
    "nothing": ("Δ",),
}
"""The columns beside ours: on the paper's own data; on small data, where the order of the rows can
be compared; on other data at full scale."""
FEW = (
    f"On few images: a tenth, at most {SUBSET}, drawn at random {DRAWS} times; mean ± sample "
    "standard deviation over the draws."
)
ALONE = f"Δ: difference to the first row of the same network. {RULE}"
EXACT = "mCE is normalised by AlexNet's published errors, as the paper's."
ORDER = (
    "Δ: difference to the first row of the same network; Δ paper: the same of the paper's "
    f"numbers. {RULE} Other data and other networks: compare the signs and the order.",
    "mCE is normalised by the vanilla network of the same seed; the paper's by AlexNet.",
)
EXPLAINED = {"number": (EXACT,), "order": ORDER, "nothing": (ALONE,)}


def table(
    experiment: Experiment,
    results: Mapping[str, Results],
    normalisers: Mapping[str, Mapping[str, Errors]],
    *,
    networks: Mapping[str, str],
    dataset: str,
    beside: str = "order",
    said: Sequence[str] = (),
) -> Table:
    """A table of the paper.

    Args:
        experiment: whose rows those are.
        results: {row's key: its results}; rows without are marked as absent.
        normalisers: {row's arch: {seed: the errors by corruption that mCE divides by}}.
        networks: {row's arch: what it is on this dataset}.
        dataset: its name, for the caption.
        beside: what stands beside ours; a key of `BESIDE`.
        said: of the data, as notes.
    """
    measures = [MEASURES[key] for key in experiment.columns]
    header = ["Row", "Network"]
    for measure in measures:
        header += [measure.heading(), *BESIDE[beside]]

    def both(row: Row, measure: Measure) -> tuple[Values, float | None]:
        ours = measure.by_seed(results.get(row.key, {}), normalisers.get(row.arch, {}))
        return ours, printed(experiment.paper, row.key, measure.printed)

    rows = []
    for row in experiment.rows:
        first = next(other for other in experiment.rows if other.arch == row.arch)
        cells = [row.label, networks[row.arch]]
        for measure in measures:
            ours, theirs = both(row, measure)
            base, printed_base = both(first, measure)
            shown = measure.spread(results.get(row.key, {}), normalisers.get(row.arch, {}))
            away = {} if theirs is None else {part: at - theirs for part, at in shown.items()}
            better = gain(ours, base, lower_is_better=measure.lower_is_better)
            columns = {
                "paper": paper_cell(theirs),
                "ours − paper": cell(away, signed=True),
                "Δ": ABSENT if row is first else better,
                "Δ paper": ABSENT if row is first else paper_gain(theirs, printed_base),
            }
            cells += [cell(shown), *(columns[name] for name in BESIDE[beside])]
        rows.append(tuple(cells))
    if any(measure.draws for measure in measures):
        said = (*said, FEW)
    counts = sorted({len(found) for found in results.values()}) or [0]
    seeds = f"{counts[0]} seeds" if counts[0] != 1 else "one seed"
    return Table(
        header=tuple(header),
        rows=tuple(rows),
        caption=f"{experiment.title}; {dataset}, top-1 and mCE in %, mean ± sample standard "
        f"deviation over {seeds}",
        notes=(*said, *EXPLAINED[beside], *notes(experiment, paper=beside != "nothing")),
    )


def notes(experiment: Experiment, *, paper: bool = True) -> list[str]:
    """Which rows are re-implementations, and from what; and doubts about the paper's numbers."""
    found = []
    doubts = list(PAPER.get(experiment.paper or "", {}).get("notes", []))
    for row in experiment.rows:
        trained, adaptation = network_of(method_of(row))
        sources = [trained.method.source, None if adaptation is NONE else adaptation.source]
        found += [f"{row.label}: {source}" for source in sources if source]
        theirs = entry(experiment.paper, row.key).get("notes", ())
        doubts += [f"{row.label}: {note}" for note in theirs]
    doubts = [f"The paper's numbers: {doubt}" for doubt in doubts if paper]
    return [*dict.fromkeys(found), *doubts]


def paper_cells(method: str) -> dict[str, str]:
    """{title: the printed number of a method, or a dash}."""
    measures = (MEASURES[key] for key in COLUMNS)
    return {
        PREFIX + measure.heading("AlexNet"): paper_cell(paper_number(method, measure))
        for measure in measures
    }


def paper_cell(value: float | None) -> str:
    """A printed number in %, as "63.44"."""
    return ABSENT if value is None else f"{value:.2f}"


def paper_gain(ours: float | None, theirs: float | None) -> str:
    """The difference of two printed numbers, as "+1.79"."""
    if ours is None or theirs is None:
        return ABSENT
    return number(ours - theirs, None, 2, signed=True)


def paper_number(method: str, measure: Measure) -> float | None:
    """The printed number of a method in %, from the first of `TABLES` that has it."""
    found = (printed(table, row, measure.printed) for table, row in _rows(method))
    return next((value for value in found if value is not None), None)


def paper_doubts(methods: Sequence[str]) -> list[str]:
    """What is doubtful about the printed numbers of these methods."""
    doubts = []
    for table, row in (place for method in methods for place in _rows(method)):
        found = entry(table, row)
        where = f"{table.replace('_', ' ').capitalize()}, {found.get('method', 'λ = 0')}"
        doubts += [f"{where}: {note}" for note in found.get("notes", ())]
    return list(dict.fromkeys(doubts))


def _rows(method: str) -> Iterator[tuple[str, str]]:
    """(table, row) of each place where the paper has the method, whose UEM is the official one."""
    by_run = method.removesuffix("@uem=official")
    for experiment in (EXPERIMENTS[name] for name in TABLES):
        for row in experiment.rows:
            if experiment.paper and row.arch == RESNET50 and method_of(row) in (method, by_run):
                yield experiment.paper, row.key
