"""What is measured of a network, each under one name: tables, figures and the paper's columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from types import MappingProxyType
from typing import Any

from reference_training.corruptions import SEEN, UNSEEN
from reference_training.evaluation import corruption_error as ce
from reference_training.methods.base import VANILLA

Json = Mapping[str, Any]
Results = Mapping[str, Json]
"""{seed: a network's part of metrics.json}."""
Errors = ce.PerSeverity


@dataclass(frozen=True)
class Measure:
    """A number of a network, in %."""

    title: str
    value: Callable[[Json, Errors], float]
    """(a network's result, the normaliser's errors by corruption) to a fraction."""
    printed: tuple[str, ...] = ()
    """What paper_results.json may call it."""
    lower_is_better: bool = False
    normalised: bool = False
    draws: Callable[[Json], list[float]] | None = None
    """Of a result, the number for each draw of few images, of which `value` is the mean."""

    def heading(self, normaliser: str | None = None) -> str:
        """The title of a column: by what it is normalised, and which way is better."""
        by = f" ({normaliser} = 100)" if normaliser and self.normalised else ""
        return f"{self.title}{by} {'↓' if self.lower_is_better else '↑'}"

    def by_seed(
        self, results: Results, normalisers: Mapping[str, Errors] = MappingProxyType({})
    ) -> dict[str, float]:
        """{seed: the number in %}; a normalised one of the seeds that have a normaliser.

        Raises:
            ValueError: the normaliser makes no error on a corruption.
        """
        return {
            seed: 100 * self.value(result, normalisers.get(seed, {}))
            for seed, result in results.items()
            if seed in normalisers or not self.normalised
        }

    def spread(
        self, results: Results, normalisers: Mapping[str, Errors] = MappingProxyType({})
    ) -> dict[str, float]:
        """What a cell's mean and deviation are over: the seeds, or draws, averaged over these."""
        if self.draws is None:
            return self.by_seed(results, normalisers)
        draws = zip(*map(self.draws, results.values()), strict=True)
        return {f"draw {number}": 100 * fmean(draw) for number, draw in enumerate(draws)}


def _of_draws(result: Json) -> list[float]:
    return [ce.seen_accuracy(draw["corruptions"]) for draw in result["draws"]]


MEASURES: Mapping[str, Measure] = {
    "clean": Measure("Clean", lambda result, _: result["clean"], ("hq", "clean")),
    "seen": Measure(
        "Seen",
        lambda result, _: ce.seen_accuracy(result["corruptions"]),
        ("seen", "top1", "original"),
    ),
    "seen_subset": Measure(
        "Seen, on few images",
        lambda result, _: fmean(_of_draws(result)),
        ("subset",),
        draws=_of_draws,
    ),
    "unseen": Measure(
        "Unseen", lambda result, _: ce.unseen_accuracy(result["corruptions"]), ("unseen",)
    ),
    "high": Measure(
        "High severities", lambda result, _: fmean(severity_means(result["corruptions"], SEEN)[3:])
    ),
    "error": Measure(
        "Mean corruption error",
        lambda result, _: ce.mean_corruption_error(result["corruptions"]),
        lower_is_better=True,
    ),
    "mce": Measure(
        "mCE",
        lambda result, errors: ce.normalised_corruption_error(
            ce.errors_of(result["corruptions"]), errors
        ),
        ("mce",),
        lower_is_better=True,
        normalised=True,
    ),
    **{
        name: Measure(
            name.replace("_", " ").capitalize(),
            partial(lambda name, result, _: fmean(result["corruptions"][name]), name),
            (name,),
        )
        for name in UNSEEN
    },
}
"""A new measure is one entry; `paper.experiments` names them as the columns of a table."""


def vanilla_errors(metrics: Json) -> dict[str, Errors]:
    """{seed: the vanilla network's errors}, which normalise the mCE of a run.

    Raises:
        ValueError: the run has no vanilla network.
    """
    vanilla = metrics["results"].get(VANILLA)
    if not vanilla:
        raise ValueError(
            "it divides by the errors of the vanilla network, which is not in this run."
        )
    return {seed: ce.errors_of(result["corruptions"]) for seed, result in vanilla.items()}


def severity_means(accuracies: ce.PerSeverity, corruptions: Sequence[str]) -> list[float]:
    """Mean top-1, a fraction, over these corruptions at severities 1 to 5."""
    rows = (accuracies[name] for name in corruptions)
    return [fmean(values) for values in zip(*rows, strict=True)]
