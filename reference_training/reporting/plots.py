"""metrics.json → the figures of a report, as blocks: which methods, and their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean

from reference_training.corruptions import CORRUPTIONS, SEEN, UNSEEN
from reference_training.methods.trainings import LABELS, label
from reference_training.reporting.bars import Bar, Bars
from reference_training.reporting.blocks import Block
from reference_training.reporting.charts import SMALL, Chooser, Curves
from reference_training.reporting.comparison import Json, by_seed, seeds_phrase, seen
from reference_training.reporting.figures import Curve
from reference_training.reporting.statistics import Spread

MOST = 8  # methods that a figure can show at once
FIRST = ("vanilla", "cross_entropy", "feature_distillation", "ulfd")
GROUPS = {"Seen corruptions (15)": SEEN, "Unseen corruptions (4)": UNSEEN}


def styles(*runs: Json) -> dict[str, int]:
    """{method: its number}: the same look in every figure; what has no label comes after."""
    names = [name for metrics in runs for name in metrics["methods"]]
    return {name: number for number, name in enumerate(dict.fromkeys([*FIRST, *LABELS, *names]))}


def plots(metrics: Json, numbers: Mapping[str, int]) -> list[Block]:
    """The choice of methods, curves by severity, bars by corruption, and the uncertainty's curves.

    Args:
        metrics: the content of metrics.json.
        numbers: the look of each method, from `styles`.
    """
    chosen = _chosen(metrics)
    curves = partial(_curves, metrics, numbers, chosen)
    blocks: list[Block] = [
        *_chooser(metrics, numbers, chosen),
        Curves(
            "figures/accuracy.png",
            f"Mean top-1 against severity; {seeds_phrase(metrics)}.",
            "top-1, %",
            {title: curves(partial(_top1, corruptions=names)) for title, names in GROUPS.items()},
            limits=(0.0, 100.0),
        ),
        *(_bars(metrics, numbers, chosen, *group) for group in GROUPS.items()),
    ]
    panels = {
        name.replace("_", " "): curves(partial(_theta, corruption=name)) for name in CORRUPTIONS
    }
    if any(panels.values()):
        caption = (
            f"Mean predicted uncertainty against severity; {seeds_phrase(metrics)}. A small cousin "
            "of the paper's Fig. 4."
        )
        blocks.append(
            Curves(
                "figures/uncertainty.png", caption, "θ = exp(σ/2)", panels, frame=SMALL, digits=4
            )
        )
    return blocks


def _chosen(metrics: Json) -> list[str]:
    """The methods that figures show at first: the paper's Table 5, then the best by Seen."""
    methods = metrics["methods"]
    if len(methods) <= MOST:
        return list(methods)
    first = [name for name in FIRST if name in methods]
    others = [name for name in methods if name not in first]
    others.sort(key=lambda name: -fmean(by_seed(metrics, name, seen).values()))
    return [*first, *others][:MOST]


def _chooser(metrics: Json, numbers: Mapping[str, int], chosen: Sequence[str]) -> list[Block]:
    methods = metrics["methods"]
    entries = tuple((label(name), numbers[name], name in chosen) for name in methods)
    why = "those of the paper's Table 5, and the best others by Seen"
    return [Chooser(entries, why)] if len(methods) > 1 else []


def _curves(
    metrics: Json,
    numbers: Mapping[str, int],
    chosen: Sequence[str],
    values: Callable[[Json], list[float]],
) -> list[Curve]:
    """A curve for each method whose results have `values`; an empty list means "has none"."""
    curves = []
    for method in metrics["methods"]:
        seeds = [row for result in metrics["results"][method].values() if (row := values(result))]
        spreads = [Spread.of(at_severity) for at_severity in zip(*seeds, strict=True)]
        if spreads:
            deviations = [s.deviation for s in spreads if s.deviation is not None]
            curves.append(
                Curve(
                    label(method),
                    numbers[method],
                    [spread.mean for spread in spreads],
                    deviations or None,
                    shown=method in chosen,
                )
            )
    return curves


def _bars(
    metrics: Json,
    numbers: Mapping[str, int],
    chosen: Sequence[str],
    title: str,
    corruptions: tuple[str, ...],
) -> Bars:
    def bar(method: str, corruption: str) -> Bar:
        top1 = by_seed(metrics, method, lambda result: fmean(result["corruptions"][corruption]))
        spread = Spread.of(top1.values())
        return Bar(label(method), numbers[method], spread.mean, spread.deviation, method in chosen)

    return Bars(
        f"{title}, one by one",
        f"Top-1 in %, mean over the severities; {seeds_phrase(metrics)}. A bar's whole "
        "width is 100 %, and the dark line spans one standard deviation to either side.",
        {
            name.replace("_", " "): [bar(method, name) for method in metrics["methods"]]
            for name in corruptions
        },
    )


def _top1(result: Json, corruptions: tuple[str, ...]) -> list[float]:
    rows = [[result["clean"], *result["corruptions"][name]] for name in corruptions]
    return [100 * fmean(values) for values in zip(*rows, strict=True)]


def _theta(result: Json, corruption: str) -> list[float]:
    theta = result.get("uncertainty")
    return [theta["clean"], *theta["corruptions"][corruption]] if theta else []
