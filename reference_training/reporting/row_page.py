"""The page of a row on ImageNet, from its run.json, its metrics.jsonl and its evaluations."""

from __future__ import annotations

from pathlib import Path

from reference_training.reporting.blocks import Block, Heading, Paragraph, Table, html_document
from reference_training.reporting.evaluation_tables import corruption_table, metric_table
from reference_training.reporting.settings import how_to_repeat
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import JsonLines, read_json, reading


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
                metric_table(result),
                corruption_table(result),
            ]
        for row in JsonLines(folder / "metrics.jsonl").read()[-1:]:
            last = tuple((name.replace("_", " "), f"{value:.6g}") for name, value in row.items())
            blocks += [
                Heading("The end of the training"),
                Table(("", "last"), last, "The newest line of metrics.jsonl"),
            ]
        blocks += how_to_repeat(run)
    return html_document(f"Report: {config['experiment']}", blocks)
