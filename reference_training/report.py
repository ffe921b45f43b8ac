"""metrics.json and run.json → report.md, report.html (one file) and figures/*.png.

What it says is in `comparison` and `uncertainty_tables`; how it looks is in `tables` and `figures`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure
from torch import Tensor

from reference_training import corruption_error as ce
from reference_training.comparison import (
    LABELS,
    PAIRS,
    Json,
    compared_pairs,
    corruption_table,
    difference_table,
    label,
    main_table,
    seeds_phrase,
    verdict,
)
from reference_training.corruptions import CORRUPTIONS, SEEN, SEVERITIES, UNSEEN
from reference_training.errors import RunError
from reference_training.figures import (
    DARK,
    LIGHT,
    Curve,
    Theme,
    corruption_sheet,
    png,
    severity_figure,
)
from reference_training.files import read_json, write_atomically
from reference_training.tables import (
    Block,
    Code,
    Heading,
    Paragraph,
    Picture,
    Table,
    html_document,
    markdown_document,
)
from reference_training.uncertainty_tables import uncertainty_tables


def write_report(folder: Path, *, example: Tensor | None = None) -> None:
    """Writes report.md, report.html and figures/*.png beside metrics.json and run.json.

    Args:
        folder: of a finished run.
        example: a test image, uint8 (3, H, W), for the sheet of corruptions; None leaves it out.

    Raises:
        RunError: a file is missing or damaged, or the folder cannot be written.
        ValueError: an accuracy is missing, or is not a fraction.
    """
    paths = folder / "metrics.json", folder / "run.json"
    for path in paths:
        if not path.exists():
            raise RunError(f"no {path}: run `python -m reference_training.run` to its end first.")
    metrics, run = map(read_json, paths)
    pictures = list(_pictures(metrics, run, example))
    blocks = report_blocks(metrics, run, pictures)
    page = html_document(f"Report: {metrics['dataset']}", blocks)
    for picture in pictures:
        write_atomically(folder / picture.path, picture.light)
    write_atomically(folder / "report.md", markdown_document(blocks).encode())
    write_atomically(folder / "report.html", page.encode())


def terminal_table(metrics: Json, run: Json) -> str:
    """What was run, the main table and the verdict, as plain text."""
    blocks = (
        Paragraph(_summary(metrics, run)),
        main_table(metrics, paper=False),
        Paragraph(verdict(metrics, *PAIRS[0])),
    )
    return "\n\n".join(block.terminal() for block in blocks)


def report_blocks(metrics: Json, run: Json, pictures: list[Picture]) -> list[Block]:
    """The whole report, in order, as data."""
    uncertainties = uncertainty_tables(metrics)
    return [
        Heading(f"Report: {metrics['dataset']}", 1),
        Paragraph(_summary(metrics, run)),
        main_table(metrics),
        Paragraph(verdict(metrics, *PAIRS[0]), callout=True),
        *(_difference_blocks(metrics) if compared_pairs(metrics) else []),
        Heading("Each corruption"),
        corruption_table(metrics),
        *([Heading("Predicted uncertainty"), *uncertainties] if uncertainties else []),
        Heading("Figures"),
        *pictures,
        *_facts(run),
    ]


def _difference_blocks(metrics: Json) -> list[Block]:
    # The first pair's verdict already stands below the main table.
    others = [pair for pair in compared_pairs(metrics) if pair != PAIRS[0]]
    return [
        Heading("Differences between the methods"),
        difference_table(metrics),
        *(Paragraph(verdict(metrics, *pair)) for pair in others),
    ]


def _pictures(metrics: Json, run: Json, example: Tensor | None) -> Iterator[Picture]:
    """The figures that the run has data for, in both themes."""
    if example is not None:
        frost = (run.get("config") or {}).get("frost", "auto")
        yield _picture(
            "corruptions",
            "One test image under every corruption, severity 1 to 5 from left to right.",
            lambda theme: corruption_sheet(example, 0, frost=frost, theme=theme),
        )
    groups = {"Seen corruptions (15)": SEEN, "Unseen corruptions (4)": UNSEEN}
    panels = {
        title: _curves(metrics, partial(_top1_by_severity, corruptions=names))
        for title, names in groups.items()
    }
    yield _picture(
        "accuracy",
        f"Mean top-1 against severity; {seeds_phrase(metrics)}.",
        lambda theme: severity_figure(panels, ylabel="top-1, %", columns=2, theme=theme),
    )
    small = {
        name.replace("_", " "): _curves(metrics, partial(_theta, corruption=name))
        for name in CORRUPTIONS
    }
    if any(small.values()):
        yield _picture(
            "uncertainty",
            f"Mean predicted uncertainty against severity; {seeds_phrase(metrics)}. A small cousin "
            "of the paper's Fig. 4.",
            lambda theme: severity_figure(
                small, ylabel="θ = exp(σ/2)", columns=5, panel_size=(2.0, 1.6), theme=theme
            ),
        )


def _picture(name: str, caption: str, draw: Callable[[Theme], Figure]) -> Picture:
    return Picture(f"figures/{name}.png", caption, png(draw(LIGHT)), png(draw(DARK)))


def _curves(metrics: Json, values: Callable[[Json], list[float]]) -> list[Curve]:
    """A curve for each method whose results have `values`; an empty list means "has none"."""
    curves = []
    for method in metrics["methods"]:
        seeds = [row for result in metrics["results"][method].values() if (row := values(result))]
        spreads = [ce.Spread.of(at_severity) for at_severity in zip(*seeds, strict=True)]
        if spreads:
            deviations = [s.deviation for s in spreads if s.deviation is not None]
            means = [spread.mean for spread in spreads]
            curves.append(Curve(label(method), _style(metrics, method), means, deviations or None))
    return curves


def _top1_by_severity(result: Json, corruptions: tuple[str, ...]) -> list[float]:
    rows = [[result["clean"], *result["corruptions"][name]] for name in corruptions]
    return [100 * fmean(values) for values in zip(*rows, strict=True)]


def _theta(result: Json, corruption: str) -> list[float]:
    theta = result.get("uncertainty")
    return [theta["clean"], *theta["corruptions"][corruption]] if theta else []


def _facts(run: Json) -> list[Block]:
    """Where the numbers come from, and how to make them again."""
    data, parameters, git = (run.get(key) or {} for key in ("dataset", "parameters", "git"))
    minutes, seconds = divmod(round(run.get("wall_seconds", 0)), 60)
    versions = ", ".join(f"{name} {v}" for name, v in (run.get("versions") or {}).items())
    changes = ", with uncommitted changes" if git.get("dirty") else ""
    facts = {
        "Data": f"{data.get('description')}; {data.get('train')} training and "
        f"{data.get('test')} test images",
        "Licence of the data": data.get("licence"),
        "SHA-256 of the data": data.get("sha256"),
        "Network": f"{run.get('network')}; {parameters.get('network')} parameters, and "
        f"{parameters.get('uem')} of the UEM, which is thrown away after training",
        "Frost": run.get("frost"),
        "Versions": versions,
        "Commit": f"{git['commit']}{changes}" if git else "not recorded: no git repository",
        "Wall time": f"{minutes} min {seconds} s of all starts together",
    }
    settings = tuple(_flat(run.get("config") or {}))
    return [
        Heading("Where these numbers come from"),
        Table(
            ("What", "Value"), tuple((k, str(v)) for k, v in facts.items()), "The run", text=True
        ),
        Heading("Make it again"),
        Paragraph("At the commit and with the versions above; finished parts are not repeated:"),
        Code(str(run.get("command"))),
        *([Table(("Setting", "Value"), settings, "Every setting", text=True)] if settings else []),
    ]


def _flat(config: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def _summary(metrics: Json, run: Json) -> str:
    train = (run.get("dataset") or {}).get("train")
    many = "methods" if len(metrics["methods"]) > 1 else "method"
    return (
        f"{run.get('network')} trained on {train} images of {metrics['dataset']} with "
        f"{len(metrics['methods'])} {many} and the seeds {', '.join(map(str, metrics['seeds']))}, "
        f"evaluated on {metrics['evaluation_images']} test images, clean and under "
        f"{len(CORRUPTIONS)} corruptions at {len(SEVERITIES)} severities."
    )


def _style(metrics: Json, method: str) -> int:
    """The same colour for a method in every report; what has no label comes after."""
    unknown = [name for name in metrics["methods"] if name not in LABELS]
    return [*LABELS, *unknown].index(method)
