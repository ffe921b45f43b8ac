"""metrics.json → the figures of a report, as pictures: which methods, and their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

from reference_training.corruptions import CORRUPTIONS, SEEN, UNSEEN
from reference_training.methods.trainings import label
from reference_training.reporting.blocks import Picture
from reference_training.reporting.comparison import seeds_phrase
from reference_training.reporting.figures import Curve, picture, severity_figure
from reference_training.reporting.measures import MEASURES, Json, severity_means
from reference_training.reporting.statistics import Spread

MOST = 8  # methods of a figure
FIRST = ("vanilla", "cross_entropy", "feature_distillation", "ulfd")
GROUPS = {"Seen corruptions (15)": SEEN, "Unseen corruptions (4)": UNSEEN}


def plots(metrics: Json) -> list[Picture]:
    """Accuracy against severity, and the predicted uncertainty of the methods that have one."""
    methods, left_out = drawn_methods(metrics)
    curves = partial(_curves, metrics, methods)
    accuracy = {title: curves(partial(_top1, corruptions=names)) for title, names in GROUPS.items()}
    pictures = [
        picture(
            "figures/accuracy.png",
            f"Mean top-1 against severity; {seeds_phrase(metrics)}.{left_out}",
            partial(severity_figure, accuracy, ylabel="top-1, %", columns=2),
        )
    ]
    theta = {
        name.replace("_", " "): curves(partial(_theta, corruption=name)) for name in CORRUPTIONS
    }
    if any(theta.values()):
        pictures.append(
            picture(
                "figures/uncertainty.png",
                f"Mean predicted uncertainty against severity; {seeds_phrase(metrics)}. A small "
                "cousin of the paper's Fig. 4.",
                partial(
                    severity_figure, theta, ylabel="θ = exp(σ/2)", columns=5, panel_size=(1.9, 1.6)
                ),
            )
        )
    return pictures


def drawn_methods(metrics: Json) -> tuple[list[str], str]:
    """Those that the figures show, and a sentence for the caption that names the others."""
    methods = metrics["methods"]
    if len(methods) <= MOST:
        return list(methods), ""
    first = [name for name in FIRST if name in methods]
    others = [name for name in methods if name not in first]
    seen = MEASURES["seen"]
    others.sort(key=lambda name: -fmean(seen.by_seed(metrics["results"][name]).values()))
    drawn = [*first, *others][:MOST]
    left_out = "; ".join(label(name) for name in methods if name not in drawn)
    return drawn, (
        f" The figures show {MOST} of {len(methods)} methods: those of the paper's Table 5, and "
        f"the best others by Seen. Left out, and in the tables: {left_out}."
    )


def _curves(
    metrics: Json, methods: Sequence[str], values: Callable[[Json], list[float]]
) -> list[Curve]:
    """A curve for each method whose results have `values`; an empty list means "has none"."""
    # The paper's methods look the same in every figure and run, and the others differ from them.
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


def _top1(result: Json, corruptions: tuple[str, ...]) -> list[float]:
    means = severity_means(result["corruptions"], corruptions)
    return [100 * top1 for top1 in (result["clean"], *means)]


def _theta(result: Json, corruption: str) -> list[float]:
    theta = result.get("uncertainty")
    return [theta["clean"], *theta["corruptions"][corruption]] if theta else []
