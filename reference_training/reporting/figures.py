"""The report's figures: functions from numbers to matplotlib figures, without files.

Every figure comes in two themes, so that a dark page does not hold white rectangles. Colours are
Okabe & Ito's (2008), distinguishable by colour-blind readers; markers differ as well.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from reference_training.corruptions import SEVERITIES
from reference_training.corruptions.sheet import corrupted_rows, sheet
from reference_training.reporting.blocks import Picture

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Every other line has gaps, so that two curves that agree are both seen. Shifting them sideways
# instead would make the right one of two falling curves look the better one.
DASH = (4, 2)
SHEET_CELL = 128
"""Pixels to which a small image is enlarged."""


@dataclass(frozen=True)
class Theme:
    """Colours of one look: the page, its text, thin lines, and the curves in order."""

    page: str
    ink: str
    grid: str
    curves: tuple[str, ...]


LIGHT = Theme(
    "#ffffff",
    "#1c2024",
    "#d9dee3",
    ("#5c6570", "#e69f00", "#009e73", "#0072b2", "#cc79a7", "#d55e00", "#56b4e9"),
)
DARK = Theme(
    "#14171a",
    "#e6e9ec",
    "#353c44",
    ("#9aa5b1", "#e69f00", "#00b98a", "#56b4e9", "#dd8fba", "#f0733a", "#3f8fd0"),
)


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


def severity_figure(
    panels: Mapping[str, Sequence[Curve]],
    *,
    ylabel: str,
    columns: int,
    panel_size: tuple[float, float] = (4.4, 3.4),
    theme: Theme = LIGHT,
) -> Figure:
    """Small multiples of curves against severity, on common axes.

    Args:
        panels: title → its curves.
        ylabel: what the values are, with their unit.
        columns: panels side by side.
        panel_size: (width, height) of a panel, in inches.
        theme: colours.

    Returns:
        The figure, its legend above the panels when they hold more than one curve.

    Raises:
        ValueError: there is no panel.
    """
    if not panels:
        raise ValueError("severity_figure: no panels given; skip the figure instead.")
    rows = ceil(len(panels) / columns)
    width, height = panel_size[0] * columns, panel_size[1] * rows
    figure = Figure(figsize=(width, height + 0.6), facecolor=theme.page, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (title, curves) in zip(grid.flat, panels.items(), strict=False):
        _panel(axes, title, curves, theme)
    for index, axes in enumerate(grid.flat):
        if index >= len(panels):
            axes.set_visible(False)
        elif index + columns >= len(panels):
            # Where the last row is short, the panels above its gap are the lowest ones.
            axes.tick_params(labelbottom=True)
    figure.supxlabel("severity (0: clean images)", color=theme.ink, fontsize=11)
    figure.supylabel(ylabel, color=theme.ink, fontsize=11)
    handles = {
        label: handle
        for axes in grid.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if len(handles) > 1:
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside upper center",
            ncols=min(len(handles), 2 if width < 7 else 3),
            frameon=False,
            labelcolor=theme.ink,
            fontsize=10,
        )
    return figure


def corruption_sheet(path: str, caption: str, image: Tensor, *, frost: str = "auto") -> Picture:
    """One image under all corruptions: 20 rows in two blocks, five severities from left to right.

    Args:
        path: of the PNG file that Markdown shows, relative to the page.
        caption: what stands under it.
        image: uint8, (3, H, W); its clean self opens the sheet.
        frost: which overlays, as for `corrupt`.
    """
    rows = list(corrupted_rows(image, 0, frost=frost).items())
    half = ceil(len(rows) / 2)
    blocks = [("severity 1 to 5", dict(rows[:half])), ("", dict(rows[half:]))]
    scale = max(1, SHEET_CELL // image.shape[-1])
    pages = []
    for theme in (LIGHT, DARK):
        buffer = io.BytesIO()
        page = sheet(blocks, scale=scale, paper=theme.page, ink=theme.ink)
        page.save(buffer, "PNG", optimize=True)
        pages.append(buffer.getvalue())
    return Picture(path, caption, *pages)


def picture(path: str, caption: str, draw: Callable[..., Figure]) -> Picture:
    """What `draw` makes of either theme, as a block.

    Args:
        path: of the PNG file that Markdown shows, relative to the page.
        caption: what stands under it.
        draw: called with `theme=LIGHT` and `theme=DARK`.
    """
    return Picture(path, caption, png(draw(theme=LIGHT)), png(draw(theme=DARK)))


def png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as the bytes of a PNG file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _panel(axes: Axes, title: str, curves: Sequence[Curve], theme: Theme) -> None:
    """Draws one panel."""
    axes.set_title(title, color=theme.ink, fontsize=11, loc="left")
    axes.set_facecolor(theme.page)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.grid)
    axes.tick_params(colors=theme.ink, labelsize=9, length=0)
    axes.set_xticks(range(len(SEVERITIES) + 1))
    for curve in curves:
        rounds, colour = divmod(curve.style, len(MARKERS))
        axes.errorbar(
            range(len(curve.values)),
            curve.values,
            yerr=curve.spreads,
            color=theme.curves[colour],
            marker=MARKERS[(colour + rounds) % len(MARKERS)],
            markersize=4.5,
            linestyle=(0, DASH) if curve.style % 2 else "-",
            linewidth=1.5,
            elinewidth=1.2,
            capsize=2.5,
            label=curve.label,
        )
