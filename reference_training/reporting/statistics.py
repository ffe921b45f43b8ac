"""The one rule for "better": differences paired by seed, their standard error, and the verdict.

The terminal, the reports, the paper's tables and the study all ask here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from reference_training.reporting.blocks import ABSENT

Values = Mapping[str, float]
"""{seed: a number}."""
EFFECT = 2.0
"""Standard errors that a mean paired difference must exceed to count as an effect."""
ENOUGH_SEEDS = 5
RULE = (
    "Differences are paired by seed: their mean ± its standard error. Beyond "
    f"{EFFECT:g} standard errors it is an effect (▲ better, ▼ worse), with fewer than "
    f"{ENOUGH_SEEDS} seeds an indication."
)


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation s (n − 1) over seeds; None where one seed has none."""

    mean: float
    deviation: float | None
    seeds: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of the seeds' values.

        Raises:
            ValueError: there is no value.
        """
        values = list(values)
        if not values:
            raise ValueError("Spread.of: no values given; at least one seed is needed.")
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))

    @property
    def error(self) -> float | None:
        """The standard error of the mean, s/√n."""
        return None if self.deviation is None else self.deviation / sqrt(self.seeds)

    @property
    def effect(self) -> int:
        """The sign of a mean beyond `EFFECT` standard errors, else 0; 0 for one seed."""
        if self.error is None or abs(self.mean) <= EFFECT * self.error:
            return 0
        return 1 if self.mean > 0 else -1


def paired(ours: Values, theirs: Values) -> dict[str, float]:
    """{seed: ours − theirs}, of the seeds that both have."""
    # Rounded, so that a difference of 1e-15 is not a gain.
    return {seed: round(ours[seed] - theirs[seed], 9) for seed in ours if seed in theirs}


def gain(ours: Values, theirs: Values, *, lower_is_better: bool = False) -> str:
    """The cell of a table: "+0.27 ± 0.03 ▲", see `RULE`; a dash if no seed has both.

    Args:
        ours, theirs: values of the same unit, as points.
        lower_is_better: for errors, whose fall is marked as better.
    """
    points = paired(ours, theirs)
    if not points:
        return ABSENT
    spread = Spread.of(points.values())
    better = -spread.effect if lower_is_better else spread.effect
    return number(spread.mean, spread.error, 2, signed=True) + ("", " ▲", " ▼")[better]


def verdict(ours: Values, theirs: Values, subject: str, rival: str, unit: str) -> str:
    """One plain sentence: is `subject` better than `rival` by an effect?

    Args:
        ours, theirs: values of which a higher one is better.
        subject, rival: what the sentence calls the two.
        unit: what the difference is counted in, as "points of seen top-1".
    """
    points = paired(ours, theirs)
    if not points:
        return f"No verdict on {subject} against {rival}: no seed of this run has both."
    found = Spread.of(points.values())
    amount = f"{number(found.mean, found.error, 2, signed=True)} {unit}"
    ahead = found.effect > 0 if found.error is not None else found.mean > 0
    how = ("beat" if found.error is not None else "was ahead of") if ahead else "did not beat"
    said = f"On this data {subject} {how} {rival}: {amount}"
    if found.error is None:
        return f"{said}, but one seed proves nothing: there is no spread to compare with."
    where = {1: "beyond", 0: "within", -1: "worse beyond"}[found.effect]
    said += (
        f" (mean of {found.seeds} paired seeds ± standard error), {where} {EFFECT:g} standard "
        "errors."
    )
    if found.seeds < ENOUGH_SEEDS:
        said += f" {found.seeds} seeds give an indication, not a test."
    return said


def cell(values: Values, *, signed: bool = False) -> str:
    """The seeds' mean ± sample standard deviation: "63.4 ± 0.3", signed "+0.21 ± 0.30"."""
    if not values:
        return ABSENT
    spread = Spread.of(values.values())
    return number(spread.mean, spread.deviation, 2 if signed else 1, signed=signed)


def number(mean: float, spread: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """A mean ± its deviation or error, if it has one; a minus is a minus sign, a zero has none."""
    text = f"{mean:{'+' if signed else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−") + ("" if spread is None else f" ± {spread:.{digits}f}")
