"""metrics.json → tables of methods, of one run or of several; `statistics` says what is better."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from reference_training.corruptions import CORRUPTIONS, SEEN, SEVERITIES, UNSEEN
from reference_training.methods.trainings import label
from reference_training.reporting import statistics
from reference_training.reporting.blocks import ABSENT, Table
from reference_training.reporting.measures import (
    MEASURES,
    Json,
    Results,
    severity_means,
    vanilla_errors,
)
from reference_training.reporting.paper_columns import (
    NOTE,
    TITLE,
    paper_cells,
    paper_gain,
    paper_number,
)
from reference_training.reporting.statistics import Values, cell, gain, paired

# What is compared with what, and how the verdict names the two.
PAIRS = (
    ("ulfd", "feature_distillation", "the uncertainty weighting", "plain MSE"),
    ("ulfd", "cross_entropy", "ULFD", "cross entropy alone"),
    ("feature_distillation", "cross_entropy", "feature distillation", "cross entropy alone"),
)
BASELINE = "cross_entropy"
MAIN = tuple(MEASURES[key] for key in ("clean", "seen", "unseen", "error"))
GAIN = "Seen − that of CE ↑"
MCE = MEASURES["mce"].heading("vanilla")
MCE_NOTE = (
    "mCE: the mean over the seen corruptions of a network's error divided by that of the "
    "vanilla network of the same seed, times 100 (both summed over the severities)."
)
GAIN_NOTE = f"Seen − that of CE: in points, CE is “{label(BASELINE)}” of the same run."


def main_table(runs: Mapping[str, Json], *, paper: bool = True) -> Table:
    """Rows: every method of every run. Columns: measures, mCE, and the paper's numbers.

    Several runs are told apart by name, data and number of seeds, and show the gain over cross
    entropy. A column without any number is left out.

    Args:
        runs: {name: the content of metrics.json}.
        paper: whether the paper's numbers stand beside.
    """
    records: list[dict[str, str]] = []
    notes: list[str] = []
    for name, metrics in runs.items():
        methods: Mapping[str, Results] = {m: metrics["results"][m] for m in metrics["methods"]}
        try:
            errors = vanilla_errors(metrics)
            mce = {m: MEASURES["mce"].by_seed(results, errors) for m, results in methods.items()}
        except ValueError as error:
            mce = {}
            notes.append(f"{name} has no normalised mCE: {error}")
        for method, results in methods.items():
            record = {"Method": label(method)}
            if len(runs) > 1:
                record |= {"Run": name, "Data": metrics["dataset"], "Seeds": str(len(results))}
            record |= {measure.heading(): cell(measure.by_seed(results)) for measure in MAIN}
            record[MCE] = cell(mce.get(method, {}))
            if len(runs) > 1:
                compared = method != BASELINE
                record[GAIN] = gain(*seen_pair(metrics, method, BASELINE)) if compared else ABSENT
            records.append(record | (paper_cells(method) if paper else {}))
    titles = [name for name in records[0] if {record[name] for record in records} != {ABSENT}]
    if len({metrics["dataset"] for metrics in runs.values()}) == 1 and "Data" in titles:
        titles.remove("Data")
    images = {metrics["evaluation_images"] for metrics in runs.values()}
    seeds = "mean ± sample standard deviation over the seeds"
    if len(runs) == 1:
        seeds = f"{images.pop()} test images, {seeds_phrase(*runs.values())}"
    aside = sum(name.startswith(TITLE) for name in titles)
    notes += [MCE_NOTE] if MCE in titles else []
    notes += [f"{GAIN_NOTE} {statistics.RULE}"] if GAIN in titles else []
    notes += [NOTE] if aside else []
    return Table(
        header=tuple(titles),
        rows=tuple(tuple(record[name] for name in titles) for record in records),
        caption=f"Top-1 accuracy and error in %, {seeds}",
        notes=tuple(notes),
        aside=aside,
        words=sum(name in ("Method", "Run", "Data") for name in titles),
    )


def difference_table(metrics: Json) -> Table:
    """Rows: pairs of methods. Columns: the gain in Seen, each seed's, the paper's; in points."""
    seeds = [str(seed) for seed in metrics["seeds"]]
    rows = []
    for first, second, _, _ in compared_pairs(metrics):
        ours, theirs = seen_pair(metrics, first, second)
        each = (gain({seed: ours[seed]} if seed in ours else {}, theirs) for seed in seeds)
        paper = paper_gain(*(paper_number(name, MEASURES["seen"]) for name in (first, second)))
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
    pair = seen_pair(metrics, first, second)
    return statistics.verdict(*pair, subject, rival, "points of seen top-1")


def corruption_table(metrics: Json) -> Table:
    """Each method's top-1 of each corruption, mean over severities and seeds, as a heat map."""
    values = []
    for method in metrics["methods"]:
        results = metrics["results"][method].values()
        values.append(
            [100 * fmean(fmean(at["corruptions"][name]) for at in results) for name in CORRUPTIONS]
        )
    low, high = min(map(min, values)), max(map(max, values))
    names = (f"{name.replace('_', ' ')}{' (unseen)' * (name in UNSEEN)}" for name in CORRUPTIONS)
    return Table(
        header=("Method", *names),
        rows=tuple(
            (label(method), *(f"{value:.1f}" for value in row))
            for method, row in zip(metrics["methods"], values, strict=True)
        ),
        caption="Top-1 of each corruption, %, mean over severities and seeds",
        shades=tuple(tuple((value - low) / (high - low or 1) for value in row) for row in values),
        narrow=True,
    )


def severity_table(metrics: Json) -> Table:
    """Rows: methods. Columns: mean top-1 of the seen, then of the unseen, at each severity."""
    rows = []
    for method in metrics["methods"]:
        cells: list[str] = []
        for group in (SEEN, UNSEEN):
            results = metrics["results"][method].values()
            seeds = (severity_means(result["corruptions"], group) for result in results)
            by_severity = zip(*seeds, strict=True)
            cells += (cell({str(s): 100 * v for s, v in enumerate(at)}) for at in by_severity)
        rows.append((label(method), *cells))
    columns = (f"{title} {severity}" for title in ("Seen", "Unseen") for severity in SEVERITIES)
    return Table(
        header=("Method", *columns),
        rows=tuple(rows),
        caption=f"Top-1 at each severity, %, {seeds_phrase(metrics)}",
    )


def seen_pair(metrics: Json, first: str, second: str) -> tuple[Values, Values]:
    """Seen of two methods, {seed: %} each; empty if the run has not the method."""
    results = (metrics["results"].get(name, {}) for name in (first, second))
    ours, theirs = map(MEASURES["seen"].by_seed, results)
    return ours, theirs


def compared_pairs(metrics: Json) -> list[tuple[str, str, str, str]]:
    """Those of `PAIRS` of which the run has both, with a seed in common."""
    return [pair for pair in PAIRS if paired(*seen_pair(metrics, *pair[:2]))]


def seeds_phrase(metrics: Json) -> str:
    """What a ± of a run is, for captions."""
    counts = sorted({len(metrics["results"][name]) for name in metrics["methods"]})
    if counts == [1]:
        return "one seed, no spread"
    counted = " or ".join(map(str, counts))
    return f"mean ± sample standard deviation over {counted} seeds"
