"""Pages of runs: one's own report, several side by side, a row on ImageNet; the table printed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from reference_training.config import CHOICE, CHOSEN, NOT_COMPUTED
from reference_training.corruptions import CORRUPTIONS, SEVERITIES
from reference_training.methods.trainings import label
from reference_training.reporting import evaluation_tables
from reference_training.reporting.blocks import (
    ABSENT,
    WIDTH,
    Block,
    Code,
    Details,
    Heading,
    Paragraph,
    Picture,
    Table,
    html_document,
    markdown_document,
)
from reference_training.reporting.comparison import (
    corruption_table,
    detection_table,
    difference_tables,
    main_table,
    uncertainty_tables,
    verdicts,
)
from reference_training.reporting.figures import corruption_sheet, plots
from reference_training.reporting.finished import SHEET, FinishedRun, read_run
from reference_training.reporting.measures import MEASURES, Json
from reference_training.reporting.result_tables import paper_doubts
from reference_training.reporting.statistics import RULE, gain, paired
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import JsonLines, read_json, reading, write_atomically

DIFFERENCES = tuple(MEASURES[key] for key in ("clean", "seen", "unseen"))


def write_report(folder: Path, *, example: Tensor | None = None) -> None:
    """Writes report.md, report.html and figures/*.png beside metrics.json and run.json.

    Args:
        folder: of a finished run.
        example: a test image, uint8 (3, H, W), for the sheet of corruptions; None leaves it out.

    Raises:
        RunError: a file is missing or damaged, a number is missing or no fraction, or the folder
            cannot be written.
    """
    if example is not None:
        frost = (read_json(folder / "run.json").get("config") or {}).get("frost", "auto")
        write_atomically(folder / SHEET, corruption_sheet(example, frost=frost))
    run = read_run(folder)
    write_page(folder / "report", _title(run), report_blocks(run))


def write_page(path: Path, title: str, blocks: Sequence[Block]) -> None:
    """Writes `path`.md, `path`.html and the pictures beside them."""
    for block in blocks:
        if isinstance(block, Picture):
            write_atomically(path.parent / block.path, block.png)
    write_atomically(path.with_name(f"{path.name}.md"), markdown_document(blocks).encode())
    write_atomically(path.with_name(f"{path.name}.html"), html_document(title, blocks).encode())


def page_of_runs(runs: Sequence[FinishedRun]) -> str:
    """The page about these runs; about one of them, its own report."""
    if len(runs) == 1:
        return html_document(_title(runs[0]), report_blocks(runs[0]))
    title = f"Report of {len(runs)} runs"
    blocks = [Heading(title, 1), *comparison_blocks(runs)]
    for run in runs:
        blocks += report_blocks(run, title=run.name)
    return html_document(title, blocks)


def _title(run: FinishedRun) -> str:
    return f"Report: {run.metrics['dataset']}"


def terminal_table(metrics: Json, run: Json) -> str:
    """What was run, the tables and the verdicts, as plain text."""
    tables = [main_table({"This run": metrics}, paper=False), *difference_tables(metrics)]
    shown = (table.terminal() for table in (*tables, detection_table(metrics)))
    said, *found = (textwrap.fill(t, WIDTH) for t in (summary(metrics, run), *verdicts(metrics)))
    return "\n\n".join((said, *shown, *found))


def report_blocks(found: FinishedRun, *, title: str | None = None) -> list[Block]:
    """All that is said of one run.

    Args:
        found: the run.
        title: of a section in a report of several runs; None makes it the whole report.
    """
    metrics, level = found.metrics, 2 if title is None else 3
    blocks: list[Block] = [
        Heading(_title(found), 1) if title is None else Heading(title),
        Paragraph(summary(metrics, found.run)),
        main_table({found.name: metrics}),
        *(Paragraph(text, callout=True) for text in verdicts(metrics)),
    ]
    if doubts := paper_doubts(metrics["methods"]):
        blocks.append(Details("Doubts about the paper's numbers", tuple(map(Paragraph, doubts))))
    if tables := difference_tables(metrics):
        blocks += [Heading("Differences between the methods", level), *tables]
    blocks += [
        Heading("What the uncertainty is good for", level),
        detection_table(metrics),
        Heading("Each corruption", level),
        corruption_table(metrics),
    ]
    if details := uncertainty_tables(metrics):
        blocks += [Heading("Predicted uncertainty", level)]
        blocks += [Details("A table for each method with a UEM", tuple(details))]
    blocks += [Heading("Figures", level), *([found.sheet] if found.sheet else []), *plots(metrics)]
    facts = {name: value for name, value in found.run.items() if name not in ("config", "command")}
    return [
        *blocks,
        Heading("Where these numbers come from", level),
        Table(("What", "Value"), tuple(_flat(facts)), "What the run noted of itself", words=2),
        *how_to_repeat(found.run, level),
    ]


def summary(metrics: Json, run: Json) -> str:
    """What was run, in one sentence, and how its λ were chosen."""
    train = (run.get("dataset") or {}).get("train")
    subset = metrics["dataset"] == "fashion-mnist-subset"
    choice = f" {CHOICE}" if subset and {*CHOSEN} <= {*metrics["methods"]} else ""
    many = "methods" if len(metrics["methods"]) > 1 else "method"
    return (
        f"{run.get('network')} trained on {train} images of {metrics['dataset']} with "
        f"{len(metrics['methods'])} {many} and the seeds {', '.join(map(str, metrics['seeds']))}, "
        f"evaluated on {metrics['evaluation_images']} test images, clean and under "
        f"{len(CORRUPTIONS)} corruptions at {len(SEVERITIES)} severities; frost overlays: "
        f"{run.get('frost')}.{choice}"
    )


def settings(run: Json) -> dict[str, str]:
    """Every setting of a run, by the name that its option has."""
    return dict(_flat(run.get("config") or {}))


def how_to_repeat(run: Json, level: int = 2) -> list[Block]:
    """The command, and every setting."""
    every = Table(("Setting", "Value"), tuple(settings(run).items()), "Settings", words=2)
    return [
        Heading("Make it again", level),
        Paragraph("At the same commit and versions; finished parts are not repeated:"),
        Code(str(run.get("command"))),
        *([Details("Every setting", (every,))] if every.rows else []),
    ]


def _flat(config: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def comparison_blocks(runs: Sequence[FinishedRun]) -> list[Block]:
    """All that is said of the runs together."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(_test_images(run), []).append(run)
    blocks: list[Block] = [Heading("All runs"), main_table({run.name: run.metrics for run in runs})]
    if len(groups) > 1:
        which = (f"{', '.join(run.name for run in group)}: {on}" for on, group in groups.items())
        text = (
            "These runs were evaluated on different test images, and differences across them are "
            f"not computed: they would say nothing about the methods. {'; '.join(which)}."
        )
        blocks.append(Paragraph(text, callout=True))
    tables = [*map(run_difference_table, groups.values()), settings_table(runs)]
    return [*blocks, *(table for table in tables if table.rows)]


def run_difference_table(group: Sequence[FinishedRun]) -> Table:
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


def _test_images(run: FinishedRun) -> str:
    """What a run was evaluated on."""
    sha256 = str((run.run.get("dataset") or {}).get("sha256"))
    return (
        f"{run.metrics['evaluation_images']} test images of {run.metrics['dataset']} "
        f"(SHA-256 {sha256[:16]}, frost {run.run.get('frost')})"
    )


def is_row(folder: Path) -> bool:
    """Whether the folder is of a row on ImageNet, finished or not: its run names an experiment."""
    path = folder / "run.json"
    run = read_json(path) if path.is_file() else None
    config = run.get("config") if isinstance(run, dict) else None
    return isinstance(config, dict) and "experiment" in config


def page_of_row(folder: Path) -> str:
    """The page: what was trained, its last losses, and every evaluation that there is.

    Args:
        folder: of the run.

    Raises:
        RunError: the run is not finished, or a file is damaged.
    """
    run = read_json(folder / "run.json")
    config, command = run["config"], run.get("command")
    if not (folder / "export" / "model.safetensors").is_file():
        raise RunError(f"the run in {folder} is not finished; continue it with: {command}")
    remedy = f"Give its command again, which makes only what is missing: {command}"
    with reading(folder, "does not hold what a row's run leaves", remedy):
        data, recipe = run["dataset"], config["recipe"]
        blocks: list[Block] = [
            Heading(f"{config['experiment']}, {config['arch']}", 1),
            Paragraph(
                f"Trained on {data['train']} photographs of {data['classes']} classes, "
                f"{recipe['iterations']} iterations of {recipe['batch_size']} pairs; frost "
                f"overlays: {run['frost']}. The network is in {folder / 'export'}."
            ),
        ]
        results = sorted((folder / "evaluation").glob("*/result.json"))
        if not results:
            blocks.append(Paragraph("Not evaluated yet: give the run's command with --evaluate."))
        for path in results:
            result = read_json(path)
            blocks += [
                Heading(f"Evaluation: {path.parent.name}"),
                Paragraph(f"On {result['label']}."),
                evaluation_tables.metric_table(result),
                evaluation_tables.corruption_table(result),
            ]
        for row in JsonLines(folder / "metrics.jsonl").read()[-1:]:
            last = tuple((name.replace("_", " "), f"{value:.6g}") for name, value in row.items())
            blocks += [
                Heading("The end of the training"),
                Table(("", "last"), last, "The newest line of metrics.jsonl"),
            ]
        blocks += how_to_repeat(run)
    return html_document(f"Report: {config['experiment']}", blocks)
