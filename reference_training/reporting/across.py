"""Several runs side by side: one table of all, and differences where the test images are equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reference_training.config import NOT_COMPUTED
from reference_training.methods.trainings import label
from reference_training.reporting.blocks import ABSENT, Block, Heading, Paragraph, Table
from reference_training.reporting.comparison import (
    MCE,
    MCE_NOTE,
    MEASURES,
    by_seed,
    mce_by_vanilla,
    measured_columns,
    seen,
)
from reference_training.reporting.finished import FinishedRun
from reference_training.reporting.one_run import settings
from reference_training.reporting.paper_columns import NOTE, paper_columns
from reference_training.reporting.statistics import RULE, cell, gain, paired

BASELINE = "cross_entropy"
AGAINST = "Seen − that of CE ↑"


def comparison_blocks(runs: Sequence[FinishedRun]) -> list[Block]:
    """All that is said of the runs together."""
    groups = _groups(runs)
    return [
        Heading("All runs"),
        run_table(runs),
        *([Paragraph(_apart(groups), callout=True)] if len(groups) > 1 else []),
        *(table for group in groups.values() if (table := difference_table(group))),
        *([table] if (table := settings_table(runs)) else []),
    ]


def run_table(runs: Sequence[FinishedRun]) -> Table:
    """Rows: every method of every run. Columns: seeds, measures, gain over CE, the paper's."""
    rows: list[tuple[str, ...]] = []
    notes = {MCE_NOTE: None}
    names = list(dict.fromkeys(name for run in runs for name in run.metrics["methods"]))
    data = {run.metrics["dataset"] for run in runs}
    baseline = any(BASELINE in run.metrics["methods"] for run in runs)
    beside = paper_columns(names)
    for run in runs:
        methods = run.metrics["methods"]
        columns = [*measured_columns(run.metrics).values()]
        try:
            columns.append([cell(mce_by_vanilla(run.metrics, name)) for name in methods])
        except ValueError as error:
            columns.append([ABSENT] * len(methods))
            notes[f"{run.name} has no normalised mCE: {error}"] = None
        if baseline:
            columns.append([_against_baseline(run, name) for name in methods])
        columns += paper_columns(methods).values() or [[ABSENT] * len(methods)] * len(beside)
        seeds = [str(len(run.metrics["results"][name])) for name in methods]
        words = [[run.name] * len(methods)]
        if len(data) > 1:
            words.append([run.metrics["dataset"]] * len(methods))
        rows += zip(map(label, methods), *words, seeds, *columns, strict=True)
    if baseline:
        notes[
            f"{AGAINST.removesuffix(' ↑')}: in points, CE is “{label(BASELINE)}” of the same run. "
            f"{RULE}"
        ] = None
    if beside:
        notes[NOTE] = None
    return Table(
        header=(
            *("Method", "Run", *(["Data"] if len(data) > 1 else []), "Seeds"),
            *(*MEASURES, MCE, *([AGAINST] if baseline else []), *beside),
        ),
        rows=tuple(rows),
        caption="Top-1 accuracy and error in %, mean ± sample standard deviation over the seeds",
        notes=tuple(notes),
        aside=len(beside),
        words=3 if len(data) > 1 else 2,
    )


def difference_table(group: Sequence[FinishedRun]) -> Table | None:
    """The same method in the first run and in each later one, paired by seed; None: no pair."""
    first, *others = group
    titles = [title for title in MEASURES if not title.startswith("Mean")]
    rows = []
    for run in others:
        for method in run.metrics["methods"]:
            columns = [
                [by_seed(side.metrics, method, MEASURES[title]) for side in (run, first)]
                for title in titles
            ]
            if seeds := paired(*columns[0]):
                cells = (gain(*column) for column in columns)
                rows.append((label(method), run.name, str(len(seeds)), *cells))
    if not rows:
        return None
    return Table(
        header=("Method", "Run", "Seeds", *titles),
        rows=tuple(rows),
        caption=f"Difference from the same method and seed in {first.name}, points of top-1, "
        "on the same test images",
        notes=(RULE,),
        words=2,
    )


def settings_table(runs: Sequence[FinishedRun]) -> Table | None:
    """The settings in which the runs differ; None where they differ in none."""
    given = [settings(run.run) for run in runs]
    names = [
        name
        for name in dict.fromkeys(name for one in given for name in one)
        if name not in NOT_COMPUTED and len({one.get(name) for one in given}) > 1
    ]
    if not names:
        return None
    return Table(
        header=("Run", *names),
        rows=tuple(
            (run.name, *(one.get(name, ABSENT) for name in names))
            for run, one in zip(runs, given, strict=True)
        ),
        caption="Settings in which the runs differ",
        words=len(names) + 1,
    )


def _groups(runs: Sequence[FinishedRun]) -> dict[tuple[str, ...], list[FinishedRun]]:
    """The runs by what they were evaluated on: data, its SHA-256, images, frost."""
    groups: dict[tuple[str, ...], list[FinishedRun]] = {}
    for run in runs:
        sha256 = (run.run.get("dataset") or {}).get("sha256")
        facts = (run.metrics["dataset"], sha256, run.metrics["evaluation_images"])
        groups.setdefault(tuple(map(str, (*facts, run.run.get("frost")))), []).append(run)
    return groups


def _apart(groups: dict[tuple[str, ...], list[FinishedRun]]) -> str:
    told = []
    alike = Counter((dataset, images) for dataset, _, images, _ in groups)
    for (dataset, sha256, images, frost), group in groups.items():
        names = ", ".join(run.name for run in group)
        finer = f" (SHA-256 {sha256[:8]}…, frost {frost})" if alike[dataset, images] > 1 else ""
        told.append(f"{names}: {images} test images of {dataset}{finer}")
    return (
        "These runs were evaluated on different test images, and differences across them are not "
        f"computed: they would say nothing about the methods. {'; '.join(told)}."
    )


def _against_baseline(run: FinishedRun, method: str) -> str:
    if method == BASELINE:
        return ABSENT
    return gain(*(by_seed(run.metrics, name, seen) for name in (method, BASELINE)))
