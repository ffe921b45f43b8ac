"""metrics.json → the report's comparisons of methods: tables of numbers, and the verdict.

Whether a method is better than another is for `statistics` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from statistics import fmean
from typing import Any

from reference_training.corruptions import CORRUPTIONS, SEEN, SEVERITIES, UNSEEN
from reference_training.evaluation import corruption_error as ce
from reference_training.methods.trainings import label
from reference_training.paper.results import PAPER
from reference_training.reporting import statistics
from reference_training.reporting.blocks import ABSENT, Table
from reference_training.reporting.paper_columns import NOTE, paper_columns
from reference_training.reporting.statistics import cell, gain, paired

Json = Mapping[str, Any]
Measure = Callable[[Json], float]

# What is compared with what, and how the verdict names the two.
PAIRS = (
    ("ulfd", "feature_distillation", "the uncertainty weighting", "plain MSE"),
    ("ulfd", "cross_entropy", "ULFD", "cross entropy alone"),
    ("feature_distillation", "cross_entropy", "feature distillation", "cross entropy alone"),
)
MOST_COLUMNS = 8  # methods side by side
MEASURES: dict[str, Measure] = {
    "Clean ↑": lambda result: result["clean"],
    "Seen ↑": lambda result: ce.seen_accuracy(result["corruptions"]),
    "Unseen ↑": lambda result: ce.unseen_accuracy(result["corruptions"]),
    "Mean corruption error ↓": lambda result: ce.mean_corruption_error(result["corruptions"]),
}
seen = MEASURES["Seen ↑"]
MCE = "mCE (vanilla = 100) ↓"
MCE_NOTE = (
    "mCE: the mean over the seen corruptions of a network's error divided by that of the "
    "vanilla network of the same seed, times 100 (both summed over the severities)."
)


def main_table(metrics: Json, *, paper: bool = True) -> Table:
    """Rows: methods. Columns: clean, Seen, Unseen, mean corruption error, mCE, the paper's.

    Args:
        metrics: the content of metrics.json.
        paper: whether the paper's numbers stand beside.
    """
    methods = metrics["methods"]
    columns = measured_columns(metrics)
    try:
        columns[MCE] = [cell(mce_by_vanilla(metrics, name)) for name in methods]
        notes = [MCE_NOTE]
    except ValueError as error:
        notes = [f"No normalised mCE: {error}"]
    beside = paper_columns(methods) if paper else {}
    return Table(
        header=("Method", *columns, *beside),
        rows=tuple(zip(map(label, methods), *columns.values(), *beside.values(), strict=True)),
        caption=f"Top-1 accuracy and error in %, {metrics['evaluation_images']} test images, "
        f"{seeds_phrase(metrics)}",
        notes=(*notes, *([NOTE] if beside else [])),
        aside=len(beside),
    )


def measured_columns(metrics: Json) -> dict[str, list[str]]:
    """{title of a measure: the cell of each method}."""
    return {
        title: [cell(by_seed(metrics, name, measure)) for name in metrics["methods"]]
        for title, measure in MEASURES.items()
    }


def difference_table(metrics: Json) -> Table:
    """Rows: pairs of methods. Columns: the gain in Seen, each seed's, the paper's; in points."""
    seeds = [str(seed) for seed in metrics["seeds"]]
    printed = {row["key"]: row["top1"] for row in PAPER["table_6a"]["rows"] if "key" in row}
    printed["feature_distillation"] = next(
        row["seen"] for row in PAPER["table_1"]["rows"] if row.get("key") == "feature_distillation"
    )
    rows = []
    for first, second, _, _ in compared_pairs(metrics):
        ours, theirs = (by_seed(metrics, name, seen) for name in (first, second))
        points = paired(ours, theirs)
        each = (
            cell({seed: points[seed]}, signed=True) if seed in points else ABSENT for seed in seeds
        )
        paper = cell({"paper": printed[first] - printed[second]}, signed=True)
        rows.append((f"{first} − {second}", gain(ours, theirs), *each, paper))
    return Table(
        header=("Difference", "Mean", *(f"Seed {seed}" for seed in seeds), "Paper"),
        rows=tuple(rows),
        caption="Paired differences in seen top-1, points",
        notes=(
            statistics.RULE,
            "Paper: Tables 1 and 6a, ImageNet, ResNet-50; one printed number each, no spread.",
        ),
        aside=1,
    )


def verdict(metrics: Json, first: str, second: str, subject: str, rival: str) -> str:
    """One plain sentence: did `first` beat `second` in Seen, by the rule of `statistics`?"""
    ours, theirs = (by_seed(metrics, name, seen) for name in (first, second))
    return statistics.verdict(ours, theirs, subject, rival, "points of seen top-1")


def corruption_table(metrics: Json) -> Table:
    """Each corruption's mean top-1 over severities and seeds, by method, as a heat map.

    Few methods are the columns; of many, each has a row.
    """
    methods = metrics["methods"]
    values = [[_mean_top1(metrics, method, name) for method in methods] for name in CORRUPTIONS]
    names = [name.replace("_", " ") for name in CORRUPTIONS]
    groups = ["seen" if name in SEEN else "unseen" for name in CORRUPTIONS]
    many = len(methods) > MOST_COLUMNS
    lead: list[tuple[str, ...]] = list(zip(names, groups, strict=True))
    header = ["Corruption", "Group", *map(label, methods)]
    if many:
        values = [list(column) for column in zip(*values, strict=True)]
        lead = [(label(method),) for method in methods]
        header = [
            "Method",
            *(f"{n}{' (unseen)' * (g == 'unseen')}" for n, g in zip(names, groups, strict=True)),
        ]
    low, high = min(map(min, values)), max(map(max, values))
    return Table(
        header=tuple(header),
        rows=tuple(
            (*first, *(f"{value:.1f}" for value in row))
            for first, row in zip(lead, values, strict=True)
        ),
        caption="Top-1 of each corruption, %, mean over severities and seeds",
        words=len(lead[0]),
        shades=tuple(tuple((value - low) / (high - low or 1) for value in row) for row in values),
        narrow=many,
    )


def severity_table(metrics: Json) -> Table:
    """Rows: methods. Columns: mean top-1 of the seen, then of the unseen, at each severity."""
    groups = {"Seen": SEEN, "Unseen": UNSEEN}
    columns = {
        f"{title} {severity}": [
            cell(by_seed(metrics, method, partial(_top1_at, corruptions=names, severity=severity)))
            for method in metrics["methods"]
        ]
        for title, names in groups.items()
        for severity in SEVERITIES
    }
    return Table(
        header=("Method", *columns),
        rows=tuple(zip(map(label, metrics["methods"]), *columns.values(), strict=True)),
        caption=f"Top-1 at each severity, %, {seeds_phrase(metrics)}",
    )


def _top1_at(result: Json, corruptions: tuple[str, ...], severity: int) -> float:
    return fmean(result["corruptions"][name][severity - 1] for name in corruptions)


def _mean_top1(metrics: Json, method: str, corruption: str) -> float:
    top1 = by_seed(metrics, method, lambda result: fmean(result["corruptions"][corruption]))
    return fmean(top1.values())


def compared_pairs(metrics: Json) -> list[tuple[str, str, str, str]]:
    results = metrics["results"]
    return [pair for pair in PAIRS if set(results.get(pair[0], ())) & set(results.get(pair[1], ()))]


def seeds_phrase(metrics: Json) -> str:
    counts = sorted({len(metrics["results"][name]) for name in metrics["methods"]})
    if counts == [1]:
        return "one seed, no spread"
    number = " or ".join(map(str, counts))
    return f"mean ± sample standard deviation over {number} seeds"


def by_seed(metrics: Json, method: str, measure: Measure) -> dict[str, float]:
    """{seed: measure × 100} of a method; empty if the run has not the method."""
    results = metrics["results"].get(method, {})
    return {seed: 100 * measure(result) for seed, result in results.items()}


def mce_by_vanilla(metrics: Json, method: str) -> dict[str, float]:
    """{seed: mCE × 100}, normalised by the vanilla network of the same seed."""
    vanilla = metrics["results"].get("vanilla")
    if not vanilla:
        raise ValueError(
            "it divides by the errors of the vanilla network, which is not in this run."
        )
    return {
        seed: 100
        * ce.normalised_corruption_error(
            ce.errors_of(result["corruptions"]), ce.errors_of(vanilla[seed]["corruptions"])
        )
        for seed, result in metrics["results"][method].items()
        if seed in vanilla
    }
