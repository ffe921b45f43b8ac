"""metrics.json → the report's comparisons of methods: tables of numbers, and the verdict.

The verdict comes from the paired differences by seed and their spread alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from reference_training import corruption_error as ce
from reference_training.corruptions import CORRUPTIONS, SEEN
from reference_training.tables import Table

Json = Mapping[str, Any]
Measure = Callable[[Json], float]

LABELS = {
    "vanilla": "Vanilla (clean only)",
    "cross_entropy": "CE on clean + degraded",
    "feature_distillation": "+ feature distillation (MSE)",
    "ulfd": "+ uncertainty (ULFD)",
    "cross_entropy_degraded": "CE on degraded only",
}
# What is compared with what, and how the verdict names the two.
PAIRS = (
    ("ulfd", "feature_distillation", "the uncertainty weighting", "plain MSE"),
    ("ulfd", "cross_entropy", "ULFD", "cross entropy alone"),
    ("feature_distillation", "cross_entropy", "feature distillation", "cross entropy alone"),
)
FEW_SEEDS = 5
ABSENT = "–"
PAPER = json.loads(Path(__file__).with_name("paper_results.json").read_text(encoding="utf-8"))


def main_table(metrics: Json, *, paper: bool = True) -> Table:
    """Rows: methods. Columns: clean, Seen, Unseen, mean corruption error, mCE, the paper's.

    Args:
        metrics: the content of metrics.json.
        paper: whether the paper's Table 5 stands beside.
    """
    measures: dict[str, Measure] = {
        "Clean ↑": lambda result: result["clean"],
        "Seen ↑": seen,
        "Unseen ↑": lambda result: ce.unseen_accuracy(result["corruptions"]),
        "Mean corruption error ↓": lambda r: ce.mean_corruption_error(r["corruptions"]),
    }
    methods = metrics["methods"]
    columns = {
        title: [cell(by_seed(metrics, name, measure)) for name in methods]
        for title, measure in measures.items()
    }
    try:
        columns["mCE (vanilla = 100) ↓"] = [
            cell(_mce_by_vanilla(metrics, name)) for name in methods
        ]
        notes = [
            "mCE: the mean over the seen corruptions of a network's error divided by that of the "
            "vanilla network of the same seed, times 100 (both summed over the severities)."
        ]
    except ValueError as error:
        notes = [f"No normalised mCE: {error}"]
    printed = {row["key"]: row for row in PAPER["table_5"]["rows"] if row["key"] in methods}
    beside = paper and bool(printed)
    if beside:
        for key, title in (
            ("clean", "Paper: clean ↑"),
            ("mce", "Paper: mCE (AlexNet = 100) ↓"),
        ):
            columns[title] = [
                f"{printed[name][key]:.2f}" if name in printed else ABSENT for name in methods
            ]
        notes.append(
            "Paper: Table 5, on ImageNet with ResNet-50, mCE normalised by AlexNet. Other data, "
            "another network, another normaliser: compare the order of the rows, not the values. "
            "In words, its first row was fine-tuned on degraded images only."
        )
    return Table(
        header=("Method", *columns),
        rows=tuple(zip(map(label, methods), *columns.values(), strict=True)),
        caption=f"Top-1 accuracy and error in %, {metrics['evaluation_images']} test images, "
        f"{seeds_phrase(metrics)}",
        notes=tuple(notes),
        aside=2 if beside else 0,
    )


def difference_table(metrics: Json) -> Table:
    """Rows: pairs of methods. Columns: Seen points, mean ± sd, each seed's, the paper's."""
    seeds = [str(seed) for seed in metrics["seeds"]]
    printed = {row["key"]: row["top1"] for row in PAPER["table_6a"]["rows"] if "key" in row}
    printed["feature_distillation"] = next(
        row["seen"] for row in PAPER["table_1"]["rows"] if row.get("key") == "feature_distillation"
    )
    rows = []
    for first, second, _, _ in compared_pairs(metrics):
        points = seen_differences(metrics, first, second)
        each = (
            cell({seed: points[seed]}, signed=True) if seed in points else ABSENT for seed in seeds
        )
        paper = cell({"paper": printed[first] - printed[second]}, signed=True)
        rows.append((f"{first} − {second}", cell(points, signed=True), *each, paper))
    return Table(
        header=("Difference", "Mean", *(f"Seed {seed}" for seed in seeds), "Paper"),
        rows=tuple(rows),
        caption=f"Paired differences in seen top-1, points, {seeds_phrase(metrics)}",
        notes=("Paper: Tables 1 and 6a, ImageNet, ResNet-50; one printed number each, no spread.",),
        aside=1,
    )


def seen_differences(metrics: Json, first: str, second: str) -> dict[str, float]:
    """{seed: Seen of `first` minus Seen of `second`, in points}, for the seeds that have both."""
    ours, theirs = (by_seed(metrics, name, seen) for name in (first, second))
    # Rounded, so that a difference of 1e-15 is not a gain.
    return {seed: round(ours[seed] - theirs[seed], 9) for seed in ours if seed in theirs}


def verdict(metrics: Json, first: str, second: str, subject: str, rival: str) -> str:
    """One plain sentence: did `first` beat `second` in Seen beyond the spread of the seeds?

    A gain counts when the mean of the paired differences exceeds their sample standard deviation;
    anything else is "did not beat", and one seed proves nothing.
    """
    points = seen_differences(metrics, first, second)
    if not points:
        return f"No verdict on {first} against {second}: no seed of this run has both."
    spread = ce.Spread.of(points.values())
    amount = f"{cell(points, signed=True)} points of seen top-1"
    if spread.deviation is None:
        if spread.mean <= 0:
            return f"On this data {subject} did not beat {rival}: {amount} in one seed, no spread."
        return (
            f"On this data {subject} was ahead of {rival} by {amount}, but in one seed only: "
            "without a spread over seeds that does not show a gain."
        )
    size = f"{amount} over {len(points)} seeds"
    few = " So few seeds give an indication, not a test." if len(points) < FEW_SEEDS else ""
    if spread.mean > spread.deviation:
        return f"On this data {subject} beat {rival}: {size}, beyond the seeds' spread.{few}"
    worse = spread.mean < -spread.deviation
    how = "worse beyond the seeds' spread" if worse else "within the seeds' spread"
    return f"On this data {subject} did not beat {rival}: {size}, {how}.{few}"


def corruption_table(metrics: Json) -> Table:
    """Rows: the 19 corruptions. Columns: each method's mean top-1 over severities and seeds."""

    def mean_top1(method: str, corruption: str) -> str:
        top1 = by_seed(metrics, method, lambda result: fmean(result["corruptions"][corruption]))
        return f"{fmean(top1.values()):.1f}"

    return Table(
        header=("Corruption", "Group", *map(label, metrics["methods"])),
        rows=tuple(
            (
                name.replace("_", " "),
                "seen" if name in SEEN else "unseen",
                *(mean_top1(method, name) for method in metrics["methods"]),
            )
            for name in CORRUPTIONS
        ),
        caption="Top-1 of each corruption, %, mean over severities and seeds",
    )


def compared_pairs(metrics: Json) -> list[tuple[str, str, str, str]]:
    return [pair for pair in PAIRS if seen_differences(metrics, *pair[:2])]


def seeds_phrase(metrics: Json) -> str:
    counts = sorted({len(metrics["results"][name]) for name in metrics["methods"]})
    if counts == [1]:
        return "one seed, no spread"
    number = " or ".join(map(str, counts))
    return f"mean ± sample standard deviation over {number} seeds"


def label(method: str) -> str:
    return LABELS.get(method, method)


def seen(result: Json) -> float:
    return ce.seen_accuracy(result["corruptions"])


def by_seed(metrics: Json, method: str, measure: Measure) -> dict[str, float]:
    """{seed: measure × 100} of a method; empty if the run has not the method."""
    results = metrics["results"].get(method, {})
    return {seed: 100 * measure(result) for seed, result in results.items()}


def _mce_by_vanilla(metrics: Json, method: str) -> dict[str, float]:
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


def cell(values: Mapping[str, float], *, signed: bool = False) -> str:
    """The seeds' values as "63.4 ± 0.3"; signed ones, which are differences, as "+0.21 ± 0.30"."""
    if not values:
        return ABSENT
    spread = ce.Spread.of(values.values())
    text = f"{spread.mean:+.2f}" if signed else f"{spread.mean:.1f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    digits = 2 if signed else 1
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.{digits}f}"
    return text.replace("-", "−") + deviation
