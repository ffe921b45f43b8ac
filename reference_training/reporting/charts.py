"""The figures of the page as HTML: curves in small SVGs, and the choice of methods.

They take their colours from the page, so one drawing serves both themes. In Markdown the curves are
a PNG file beside, drawn by `figures`.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from matplotlib.ticker import MaxNLocator

from reference_training.corruptions import SEVERITIES
from reference_training.reporting.blocks import escape_markdown
from reference_training.reporting.figures import DASH, Curve, Look, Theme, png, severity_figure
from reference_training.reporting.statistics import number

# Paths around a point, for the markers that `figures` gives to matplotlib.
MARKS = {
    "o": "m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z",
    "s": "m-2.8-2.8h5.6v5.6h-5.6z",
    "^": "m0-3.6l3.6 6.6h-7.2z",
    "D": "m0-3.8l3.8 3.8l-3.8 3.8l-3.8-3.8z",
    "v": "m0 3.6l3.6-6.6h-7.2z",
    "P": "m-1.2-3.4h2.4v2.2h2.2v2.4h-2.2v2.2h-2.4v-2.2h-2.2v-2.4h2.2z",
    "X": "m-3.4-2.2l1.2-1.2l2.2 2.2l2.2-2.2l1.2 1.2l-2.2 2.2l2.2 2.2l-1.2 1.2"
    "l-2.2-2.2l-2.2 2.2l-1.2-1.2l2.2-2.2z",
}


@dataclass(frozen=True)
class Frame:
    """Size of a panel: (width, height) in SVG's pixels, and the columns that matplotlib makes."""

    width: int
    height: int
    columns: int

    @property
    def inches(self) -> tuple[float, float]:
        return self.width / 100, self.height / 100


LARGE, SMALL = Frame(440, 300, 2), Frame(180, 150, 5)
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 8, 22  # margins of a panel


@dataclass(frozen=True)
class Curves:
    """Panels of curves against severity, on common axes; `path` is the PNG file beside."""

    path: str
    caption: str
    ylabel: str
    panels: Mapping[str, Sequence[Curve]]
    frame: Frame = LARGE
    digits: int = 1
    limits: tuple[float, float] = (-inf, inf)
    """What values can be at all; error bars end there."""

    def png(self, theme: Theme) -> bytes:
        """The curves that are shown, for where there is no page."""
        figure = severity_figure(
            self.panels,
            ylabel=self.ylabel,
            columns=self.frame.columns,
            panel_size=self.frame.inches,
            theme=theme,
        )
        return png(figure)

    def markdown(self) -> str:
        if not any(curve.shown for curves in self.panels.values() for curve in curves):
            return ""
        caption = escape_markdown(self.caption)
        return f"![{caption}]({self.path})\n\n*{caption}*"

    def html(self) -> str:
        ends = [
            self._end(value + sign * spread)
            for curves in self.panels.values()
            for curve in curves
            for value, spread in zip(curve.values, _spreads(curve), strict=True)
            for sign in (-1, 1)
        ]
        ticks = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(min(ends), max(ends))
        panels = (self._panel(title, curves, list(ticks)) for title, curves in self.panels.items())
        caption = f"{self.caption} Upwards: {self.ylabel}; to the right: severity, 0 is clean."
        return panels_figure(panels, caption, self.frame.width * 0.85)

    def _end(self, value: float) -> float:
        return min(max(value, self.limits[0]), self.limits[1])

    def _panel(self, title: str, curves: Sequence[Curve], ticks: list[float]) -> str:
        """One SVG: grid, axes' numbers, and a group for each curve."""
        frame, low, high = self.frame, ticks[0], ticks[-1]
        right, bottom = frame.width - RIGHT, frame.height - BOTTOM
        step = (right - LEFT - 12) / len(SEVERITIES)
        xs = [LEFT + 6 + step * severity for severity in (0, *SEVERITIES)]

        def y(value: float) -> float:
            return round(bottom - (value - low) / (high - low) * (bottom - TOP), 1)

        parts = [
            f'<path class="grid" d="{"".join(f"M{LEFT} {y(tick)}H{right}" for tick in ticks)}"/>'
        ]
        parts += [
            f'<text x="{LEFT - 6}" y="{y(tick) + 4:g}" text-anchor="end">{tick:g}</text>'
            for tick in ticks
        ]
        parts += [
            f'<text x="{x:g}" y="{frame.height - 4}" text-anchor="middle">{severity}</text>'
            for severity, x in enumerate(xs)
        ]
        parts += [self._curve(curve, xs, y) for curve in curves]
        title = html.escape(title)
        return (
            f'<div class="panel"><p>{title}</p><svg viewBox="0 0 {frame.width} {frame.height}" '
            f'font-size="12" role="img" aria-label="{title}">{"".join(parts)}</svg></div>'
        )

    def _curve(self, curve: Curve, xs: Sequence[float], y: Callable[[float], float]) -> str:
        """Line, error bars and markers; its numbers where the pointer rests."""
        spreads = _spreads(curve)
        points = [f"{x:g} {y(value):g}" for x, value in zip(xs, curve.values, strict=True)]
        bars = "".join(
            f"M{x:g} {y(self._end(value - spread)):g}V{y(self._end(value + spread)):g}"
            for x, value, spread in zip(xs, curve.values, spreads, strict=True)
            if spread
        )
        marks = "".join(f"M{point}{MARKS[Look.of(curve.style).marker]}" for point in points)
        deviations: Sequence[float | None] = curve.spreads or [None] * len(points)
        numbers = ", ".join(
            number(*pair, self.digits) for pair in zip(curve.values, deviations, strict=True)
        )
        return (
            f'<g{attributes(curve.style, curve.shown)} style="{colour(curve.style)}">'
            f"<title>{html.escape(curve.label)}: {numbers}</title>"
            f'<path class="line" d="M{"L".join(points)}"{_dashes(curve.style)}/>'
            + (f'<path class="spread" d="{bars}"/>' if bars else "")
            + f'<path class="mark" d="{marks}"/></g>'
        )


@dataclass(frozen=True)
class Chooser:
    """Which methods the figures of a section show; the page's script lets the reader choose."""

    methods: tuple[tuple[str, int, bool], ...]
    """(label, style, shown) of each."""
    why: str
    """By what the ones shown were chosen, when not all are."""

    def markdown(self) -> str:
        return escape_markdown(" ".join(self._left_out()))

    def html(self) -> str:
        boxes = "".join(
            f'<label><input type="checkbox" autocomplete="off" value="{style}"'
            f"{' checked' if shown else ''}>{_key(style)}{html.escape(label)}</label>"
            for label, style, shown in self.methods
        )
        legend = "<legend>Methods in the figures</legend>"
        chooser = f'<fieldset class="chooser" hidden>{legend}{boxes}</fieldset>'
        if not (said := self._left_out()):
            return chooser
        summary, names = map(html.escape, said)
        return f"{chooser}<details><summary>{summary}</summary><p>{names}</p></details>"

    def _left_out(self) -> tuple[str, ...]:
        """How many are shown, and the others by name; nothing when all are."""
        others = [label for label, _, shown in self.methods if not shown]
        if not others:
            return ()
        count = len(self.methods)
        return (
            f"At first the figures show {count - len(others)} of {count} methods: {self.why}.",
            f"Left out, and in the tables: {'; '.join(others)}.",
        )


def panels_figure(panels: Iterable[str], caption: str, width: float) -> str:
    """Panels of that width, in pixels, or wider, as many side by side as fit."""
    return (
        f'<figure><div class="panels" style="--panel:{width:g}px">{"".join(panels)}</div>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def attributes(style: int, shown: bool) -> str:
    """By which the page's script finds what is drawn of a method."""
    off = ' class="off"' if not shown else ""
    return f'{off} data-method="{style}"'


def colour(style: int) -> str:
    """The CSS that gives a method's colour to what is drawn of it."""
    return f"--curve:var(--curve-{Look.of(style).colour})"


def _dashes(style: int) -> str:
    return (
        f' stroke-dasharray="{DASH[0] * 1.6:g} {DASH[1] * 1.6:g}"' if Look.of(style).dashed else ""
    )


def _key(style: int) -> str:
    """The line and marker of a method, for the legend."""
    return (
        f'<svg class="key" viewBox="0 0 30 14" aria-hidden="true" style="{colour(style)}">'
        f'<path class="line" d="M0 7H30"{_dashes(style)}/>'
        f'<path class="mark" d="M15 7{MARKS[Look.of(style).marker]}"/></svg>'
    )


def _spreads(curve: Curve) -> Sequence[float]:
    return curve.spreads or [0.0] * len(curve.values)
