"""The figures of a report: metrics.json → curves → matplotlib → pictures.

Colours are Okabe & Ito's (2008), distinguishable by colour-blind readers; markers differ as well.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from reference_training.corruptions import CORRUPTIONS, SEEN, SEVERITIES, UNSEEN
from reference_training.corruptions.sheet import corrupted_rows, sheet
from reference_training.methods.trainings import label
from reference_training.reporting.blocks import Picture
from reference_training.reporting.comparison import seeds_phrase
from reference_training.reporting.measures import Json, severity_means
from reference_training.reporting.statistics import Spread

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Every other line has gaps, so that two curves that agree are both seen. Shifting them sideways
# instead would make the right one of two falling curves look the better one.
DASH = (4, 2)
SHEET_CELL = 128
"""Pixels to which a small image is enlarged."""
MOST = 8  # methods of a figure
FIRST = ("vanilla", "cross_entropy", "feature_distillation", "ulfd")
GROUPS = {"Seen corruptions (15)": SEEN, "Unseen corruptions (4)": UNSEEN}


PAGE, INK, GRID = "#ffffff", "#1c2024", "#d9dee3"
"""The colours of the page, its text and thin lines."""
COLOURS = ("#5c6570", "#e69f00", "#009e73", "#0072b2", "#cc79a7", "#d55e00", "#56b4e9")
"""Of the curves, in order."""


@dataclass(frozen=True)
class Curve:
    """One line of a figure: its values at severity 0 (the clean images) to 5, and their spread.

    `style` numbers the method and picks its look: 49 differ in colour or marker. `spreads` holds
    sample standard deviations over seeds, or None where one seed has none.
    """

    label: str
    style: int
    values: Sequence[float]
    spreads: Sequence[float] | None = None


def plots(metrics: Json) -> list[Picture]:
    """Accuracy against severity, and the predicted uncertainty of the methods that have one."""
    # Those of the paper's Table 5 are among the figures' methods, and look the same in every run.
    methods = sorted(metrics["methods"], key=lambda name: name not in FIRST)
    left_out = "; ".join(label(name) for name in methods[MOST:])
    note = f" Left out, and in the tables: {left_out}." if left_out else ""
    curves = partial(_curves, metrics, methods[:MOST])
    accuracy = {title: curves(partial(_top1, names)) for title, names in GROUPS.items()}
    theta = {name.replace("_", " "): curves(partial(_theta, name)) for name in CORRUPTIONS}
    spread = seeds_phrase(metrics)
    figure = severity_figure(accuracy, ylabel="top-1, %", columns=2)
    caption = f"Mean top-1 against severity; {spread}.{note}"
    pictures = [picture("figures/accuracy.png", caption, figure)]
    if any(theta.values()):
        figure = severity_figure(theta, ylabel="θ = exp(σ/2)", columns=5, panel_size=(1.9, 1.6))
        caption = (
            f"Mean predicted uncertainty against severity; {spread}. A small cousin of Fig. 4."
        )
        pictures.append(picture("figures/uncertainty.png", caption, figure))
    return pictures


def _curves(
    metrics: Json, methods: Sequence[str], values: Callable[[Json], list[float]]
) -> list[Curve]:
    """A curve for each method whose results have `values`; an empty list means "has none"."""
    looks = {name: look for look, name in enumerate(dict.fromkeys([*FIRST, *methods]))}
    curves = []
    for method in methods:
        seeds = [row for result in metrics["results"][method].values() if (row := values(result))]
        spreads = [Spread.of(at_severity) for at_severity in zip(*seeds, strict=True)]
        deviations = [s.deviation for s in spreads if s.deviation is not None]
        if spreads:
            means = [spread.mean for spread in spreads]
            curves.append(Curve(label(method), looks[method], means, deviations or None))
    return curves


def _top1(corruptions: tuple[str, ...], result: Json) -> list[float]:
    means = severity_means(result["corruptions"], corruptions)
    return [100 * top1 for top1 in (result["clean"], *means)]


def _theta(corruption: str, result: Json) -> list[float]:
    theta = result.get("uncertainty")
    return [theta["clean"], *theta["corruptions"][corruption]] if theta else []


def severity_figure(
    panels: Mapping[str, Sequence[Curve]],
    *,
    ylabel: str,
    columns: int,
    panel_size: tuple[float, float] = (4.4, 3.4),
) -> Figure:
    """Small multiples of curves against severity, on common axes.

    Args:
        panels: title → its curves; at least one.
        ylabel: what the values are, with their unit.
        columns: panels side by side.
        panel_size: (width, height) of a panel, in inches.

    Returns:
        The figure, its legend above the panels when they hold more than one curve.
    """
    rows = ceil(len(panels) / columns)
    width, height = panel_size[0] * columns, panel_size[1] * rows
    figure = Figure(figsize=(width, height + 0.6), facecolor=PAGE, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    handles: dict[str, Any] = {}
    for axes, (title, curves) in zip(grid.flat, panels.items(), strict=False):
        _panel(axes, title, curves)
        handles |= {str(curve.get_label()): curve for curve in axes.containers}
    for index, axes in enumerate(grid.flat):
        axes.set_visible(index < len(panels))
        # Where the last row is short, the panels above its gap are the lowest ones.
        axes.tick_params(labelbottom=index + columns >= len(panels))
    figure.supxlabel("severity (0: clean images)", color=INK, fontsize=11)
    figure.supylabel(ylabel, color=INK, fontsize=11)
    if len(handles) > 1:
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside upper center",
            ncols=min(len(handles), 2 if width < 7 else 3),
            frameon=False,
            labelcolor=INK,
            fontsize=10,
        )
    return figure


def _panel(axes: Axes, title: str, curves: Sequence[Curve]) -> None:
    """Draws one panel."""
    axes.set_title(title, color=INK, fontsize=11, loc="left")
    axes.set_facecolor(PAGE)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.set_xticks(range(len(SEVERITIES) + 1))
    for curve in curves:
        rounds, colour = divmod(curve.style, len(MARKERS))
        axes.errorbar(
            range(len(curve.values)),
            curve.values,
            yerr=curve.spreads,
            color=COLOURS[colour],
            marker=MARKERS[(colour + rounds) % len(MARKERS)],
            markersize=4.5,
            linestyle=(0, DASH) if curve.style % 2 else "-",
            linewidth=1.5,
            elinewidth=1.2,
            capsize=2.5,
            label=curve.label,
        )


def corruption_sheet(image: Tensor, *, frost: str = "auto") -> bytes:
    """One image under all corruptions: 20 rows in two blocks, five severities from left to right.

    Args:
        image: uint8, (3, H, W); its clean self opens the sheet.
        frost: which overlays, as for `corrupt`.

    Returns:
        A PNG file.
    """
    rows = list(corrupted_rows(image, 0, frost=frost).items())
    half = ceil(len(rows) / 2)
    blocks = [("severity 1 to 5", dict(rows[:half])), ("", dict(rows[half:]))]
    page = sheet(blocks, scale=max(1, SHEET_CELL // image.shape[-1]))
    with io.BytesIO() as buffer:
        page.save(buffer, "PNG", optimize=True)
        return buffer.getvalue()


def picture(path: str, caption: str, figure: Figure) -> Picture:
    """A figure as a block.

    Args:
        path: of the PNG file that Markdown shows, relative to the page.
        caption: what stands under it.
        figure: what is shown.
    """
    return Picture(path, caption, png(figure))


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file; equal figures give equal bytes."""
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
        return buffer.getvalue()
