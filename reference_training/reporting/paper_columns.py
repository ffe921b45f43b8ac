"""The paper's own numbers, to stand beside ours where a method is a row of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reference_training.methods.trainings import method_of
from reference_training.paper.experiments import EXPERIMENTS, RESNET50
from reference_training.paper.results import PAPER
from reference_training.reporting.blocks import ABSENT

# A value is looked for in this order, under the names that the tables give it.
TABLES = ("table_1", "table_5", "table_6a", "table_3")
COLUMNS = {
    "Paper: clean ↑": ("hq", "clean"),
    "Paper: Seen ↑": ("seen", "top1"),
    "Paper: Unseen ↑": ("unseen",),
    "Paper: mCE (AlexNet = 100) ↓": ("mce",),
}
NOTE = (
    "Paper: Tables 1, 3, 5 and 6a, on ImageNet with ResNet-50, mCE normalised by AlexNet. Other "
    "data, another network, another normaliser: compare the order of the rows, not the values. "
    "Seen of cross entropy is Table 6a's λ = 0; in words, Table 5's first row was fine-tuned on "
    "degraded images only."
)


def paper_columns(methods: Sequence[str]) -> dict[str, list[str]]:
    """{title: the printed number of each method}, empty where the paper has none of them."""
    if not any(list(_rows(method)) for method in methods):
        return {}
    return {
        title: [_printed(method, names) for method in methods] for title, names in COLUMNS.items()
    }


def paper_doubts(methods: Sequence[str]) -> list[str]:
    """What is doubtful about the printed numbers of these methods."""
    doubts = {
        f"{table.replace('_', ' ').capitalize()}, {row.get('method', 'λ = 0')}: {note}": None
        for method in methods
        for table, row in _rows(method)
        for note in row.get("notes", [])
    }
    return list(doubts)


def _rows(method: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for table in TABLES:
        for row in EXPERIMENTS[table.replace("_", "")].rows:
            if row.arch == RESNET50 and method_of(row) == method:
                yield from ((table, one) for one in PAPER[table]["rows"] if one["row"] == row.key)


def _printed(method: str, names: tuple[str, ...]) -> str:
    values = (row.get(name) for _, row in _rows(method) for name in names)
    return next((f"{value:.2f}" for value in values if value is not None), ABSENT)
