"""The paper's own numbers, to stand beside ours where a method is a row of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reference_training.methods.trainings import method_of
from reference_training.paper.experiments import EXPERIMENTS, RESNET50
from reference_training.paper.results import entry, printed
from reference_training.reporting.blocks import ABSENT
from reference_training.reporting.measures import MEASURES, Measure
from reference_training.reporting.statistics import number

# A number is looked for in this order.
TABLES = ("table1", "table5", "table6a", "table3")
COLUMNS = ("clean", "seen", "unseen", "mce")
TITLE = "Paper: "
NOTE = (
    "Paper: Tables 1, 3, 5 and 6a, on ImageNet with ResNet-50, mCE normalised by AlexNet. Other "
    "data, another network, another normaliser: compare the order of the rows, not the values. "
    "Seen of cross entropy is Table 6a's λ = 0; in words, Table 5's first row was fine-tuned on "
    "degraded images only."
)


def paper_cells(method: str) -> dict[str, str]:
    """{title: the printed number of a method, or a dash}."""
    measures = (MEASURES[key] for key in COLUMNS)
    return {
        TITLE + measure.heading("AlexNet"): paper_cell(paper_number(method, measure))
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
    """(table, row) of each place where the paper has the method."""
    for experiment in (EXPERIMENTS[name] for name in TABLES):
        for row in experiment.rows:
            if experiment.paper and row.arch == RESNET50 and method_of(row) == method:
                yield experiment.paper, row.key
