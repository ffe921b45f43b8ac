"""Bars as HTML lists: name, length and number in one line. Markdown leaves them to the tables."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reference_training.reporting.charts import attributes, colour, panels_figure
from reference_training.reporting.statistics import number


@dataclass(frozen=True)
class Bar:
    """A method's value in %, and its sample standard deviation if it has one."""

    label: str
    style: int
    value: float
    spread: float | None
    shown: bool = True


@dataclass(frozen=True)
class Bars:
    """Panels of horizontal bars from 0 to 100 %."""

    title: str
    caption: str
    panels: Mapping[str, Sequence[Bar]]

    def markdown(self) -> str:
        return ""

    def html(self) -> str:
        panels = (
            f'<div class="panel"><p>{html.escape(title)}</p>'
            f'<ul class="bars">{"".join(map(_bar, bars))}</ul></div>'
            for title, bars in self.panels.items()
        )
        figure = panels_figure(panels, self.caption, 240)
        return f'<p class="caption">{html.escape(self.title)}</p>{figure}'


def _bar(bar: Bar) -> str:
    style = f"{colour(bar.style)};--value:{bar.value:.2f};--spread:{bar.spread or 0:.2f}"
    label = html.escape(bar.label)
    return (
        f'<li{attributes(bar.style, bar.shown)} style="{style}" title="{label}">'
        f"<span>{label}</span><b>{number(bar.value, bar.spread)}</b></li>"
    )
