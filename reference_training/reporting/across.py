"""Several runs side by side: one table of all, and differences where the test images are equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reference_training.config import NOT_COMPUTED
from reference_training.methods.trainings import label
from reference_training.reporting.blocks import ABSENT, Block, Heading, Paragraph, Table
from reference_training.reporting.comparison import main_table
from reference_training.reporting.finished import FinishedRun
from reference_training.reporting.measures import MEASURES
from reference_training.reporting.settings import settings
from reference_training.reporting.statistics import RULE, gain, paired

DIFFERENCES = tuple(MEASURES[key] for key in ("clean", "seen", "unseen"))


def comparison_blocks(runs: Sequence[FinishedRun]) -> list[Block]:
    """All that is said of the runs together."""
    groups = _groups(runs)
    tables = [*map(difference_table, groups.values()), settings_table(runs)]
    return [
        Heading("All runs"),
        main_table({run.name: run.metrics for run in runs}),
        *([Paragraph(_apart(groups), callout=True)] if len(groups) > 1 else []),
        *(table for table in tables if table.rows),
    ]


def difference_table(group: Sequence[FinishedRun]) -> Table:
    """The same method in the first run and in each later one, paired by seed."""
    first, *others = group
    rows = []
    for run in others:
        for method in run.metrics["methods"]:
            sides = [side.metrics["results"].get(method, {}) for side in (run, first)]
            pairs = [[measure.by_seed(results) for results in sides] for measure in DIFFERENCES]
            if seeds := paired(*pairs[0]):
                cells = (gain(*pair) for pair in pairs)
                rows.append((label(method), run.name, str(len(seeds)), *cells))
    return Table(
        header=("Method", "Run", "Seeds", *(measure.heading() for measure in DIFFERENCES)),
        rows=tuple(rows),
        caption=f"Difference from the same method and seed in {first.name}, points of top-1, "
        "on the same test images",
        notes=(RULE,),
        words=2,
    )


def settings_table(runs: Sequence[FinishedRun]) -> Table:
    """The settings in which the runs differ."""
    of_runs = {run.name: settings(run.run) for run in runs}
    names = [
        name
        for name in dict.fromkeys(name for known in of_runs.values() for name in known)
        if name not in NOT_COMPUTED and len({known.get(name) for known in of_runs.values()}) > 1
    ]
    rows = ((run, *(known.get(name, ABSENT) for name in names)) for run, known in of_runs.items())
    return Table(
        header=("Run", *names),
        rows=tuple(rows) if names else (),
        caption="Settings in which the runs differ",
        words=1 + len(names),
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
