"""The data of the study → its page: what holds up, what does not, how large against the spread."""

from collections.abc import Iterable, Mapping
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from reference_training.corruptions import CORRUPTIONS, SEEN, SEVERITIES, UNSEEN
from reference_training.evaluation import corruption_error as ce
from reference_training.evaluation.ranking_metrics import rank_correlation
from reference_training.methods.trainings import label, network_of
from reference_training.reporting.blocks import (
    Block,
    Code,
    Heading,
    Paragraph,
    Table,
    markdown_document,
)
from reference_training.reporting.comparison import ABSENT, cell

Json = Mapping[str, Any]
HIGH = (4, 5)
BASELINE, MSE = "cross_entropy", "feature_distillation"
EFFECT = 2.0
"""Standard errors that a mean paired difference must exceed to count as an effect."""


def page(
    found: Mapping[str, Json],
    questions: Mapping[str, str],
    weights: Mapping[str, float],
    conclusions: str,
) -> str:
    """The page in Markdown.

    Args:
        found: {part: its data, as metrics.json}.
        questions: {part: what it asks}.
        weights: {candidate: the chosen λ}.
        conclusions: what a person read from the tables, in Markdown.
    """
    blocks: list[Block] = [
        Heading("The data"),
        Paragraph(
            "Made by the command at the end from the data beside this page; the plan was written "
            "before the runs (PLAN.md). Top-1 in %, mean ± sample standard deviation over seeds. "
            "A difference is paired by seed, with its standard error; it counts as an effect (▲ "
            f"better, ▼ worse) if it exceeds {EFFECT:g} standard errors."
        ),
    ]
    for name, metrics in found.items():
        blocks += [Heading(f"{name}: {questions[name]}"), accuracy_table(metrics)]
        if name == "validation":
            chosen = ", ".join(f"{key} {value:g}" for key, value in weights.items())
            blocks.append(Paragraph(f"Chosen λ: {chosen}."))
    for name in ("options", "paper", "augmentations"):
        if name in found:
            blocks += [Heading(f"What the UEM says: {name}"), uncertainty_table(found[name])]
    blocks += [Heading("What the rows are"), *_sources(found.values())]
    blocks += [
        Heading("Make it again"),
        Code("python -m reference_training.experiments.study --data-root FOLDER_OF_FASHION_MNIST"),
        Paragraph("It continues where it was left; --tables makes this page from the data alone."),
    ]
    return f"# What holds up on a laptop\n\n{conclusions}\n\n{markdown_document(blocks)}"


def accuracy_table(metrics: Json) -> Table:
    """Rows: methods. Columns: clean, seen, unseen, high severities, gains over CE and over MSE."""
    everyone = metrics["results"]
    plain = next((name for name in metrics["methods"] if name.startswith(MSE)), None)
    bases = {"CE": BASELINE, "MSE": plain}
    rows = []
    for method in metrics["methods"]:
        cells = [
            cell({seed: 100 * measure(result) for seed, result in everyone[method].items()})
            for measure in COLUMNS.values()
        ]
        for base in bases.values():
            compared = base in everyone and base != method
            cells.append(gain(everyone[method], everyone[base], seen) if compared else ABSENT)
        base = everyone.get(BASELINE)
        compared = base is not None and method != BASELINE
        cells.append(gain(everyone[method], base, high) if compared else ABSENT)
        rows.append((label(method), *cells))
    return Table(
        ("Method", *COLUMNS, *(f"seen − {name}" for name in bases), "high − CE"),
        tuple(rows),
        f"{metrics['dataset']}, {metrics['evaluation_images']} images, "
        f"{len(metrics['seeds'])} seeds",
        notes=(f"MSE: {label(plain)}.",) if plain else (),
    )


def seen(result: Json) -> float:
    return ce.seen_accuracy(result["corruptions"])


def high(result: Json) -> float:
    """Mean top-1 over the seen corruptions at severities 4 and 5."""
    at = [SEVERITIES.index(severity) for severity in HIGH]
    return fmean(result["corruptions"][name][index] for name in SEEN for index in at)


COLUMNS = {
    "clean": lambda result: result["clean"],
    "seen": seen,
    "unseen": lambda result: ce.unseen_accuracy(result["corruptions"]),
    "high severities": high,
}


def gain(ours: Json, theirs: Json, measure: Any) -> str:
    """The mean paired difference in points with its standard error, marked if it is an effect."""
    points = [
        100 * (measure(ours[seed]) - measure(theirs[seed])) for seed in ours if seed in theirs
    ]
    if len(points) < 2:
        return ABSENT
    mean, error = fmean(points), stdev(points) / sqrt(len(points))
    mark = "" if abs(mean) <= EFFECT * error else " ▲" if mean > 0 else " ▼"
    return f"{mean:+.2f} ± {error:.2f}{mark}".replace("-", "−")


def uncertainty_table(metrics: Json) -> Table:
    """Rows: methods with a UEM. Columns: order by severity, detection, calibration."""
    rows = []
    for method in metrics["methods"]:
        results = [r for r in metrics["results"][method].values() if r.get("calibration")]
        if results:
            rows.append(
                (label(method), *(_mean_of(results, read) for read in UNCERTAINTY.values()))
            )
    return Table(
        ("Method", *UNCERTAINTY),
        tuple(rows),
        "Predicted uncertainty, means over the corruptions and seeds",
        notes=(
            "ρ: Spearman's correlation of the mean θ = exp(σ/2) with severities 1 to 5 of a "
            "corruption. AUROC: an image's mean θ as a detector of degraded images among clean "
            "ones, 0.5 is chance. (z − ẑ)² / exp(σ): its mean is k where the loss is minimal in σ. "
            "Correlations of exp(σ) with (z − ẑ)²: over the images of a set, and over elements.",
        ),
    )


def _mean_of(results: list[Json], read: Any) -> str:
    values = [value for result in results if (value := read(result)) is not None]
    return f"{fmean(values):.2f}" if values else ABSENT


def _order(names: tuple[str, ...]) -> Any:
    def read(result: Json) -> float | None:
        rows = [result["uncertainty"]["corruptions"][name] for name in names]
        values = [rank_correlation(SEVERITIES, row) for row in rows]
        defined = [value for value in values if value == value]
        return fmean(defined) if defined else None

    return read


def _calibrated(key: str, names: tuple[str, ...]) -> Any:
    def read(result: Json) -> float | None:
        rows = [result["calibration"][key]["corruptions"][name] for name in names]
        values = [value for row in rows for value in row if value is not None]
        return fmean(values) if values else None

    return read


UNCERTAINTY = {
    "ρ, seen": _order(SEEN),
    "ρ, unseen": _order(UNSEEN),
    "AUROC, seen": _calibrated("auroc", SEEN),
    "AUROC, unseen": _calibrated("auroc", UNSEEN),
    "mean (z − ẑ)² / exp(σ)": _calibrated("weighted_square", CORRUPTIONS),
    "ρ by image": _calibrated("image_rank_correlation", CORRUPTIONS),
    "ρ by element": _calibrated("element_rank_correlation", CORRUPTIONS),
}


def _sources(parts: Iterable[Json]) -> list[Block]:
    """Which rows are re-implementations in the style of something, and of what."""
    found = {}
    for method in dict.fromkeys(method for metrics in parts for method in metrics["methods"]):
        trained, adaptation = network_of(method)
        for title, source in (
            (label(trained.method.name), trained.method.source),
            (adaptation.label, adaptation.source),
        ):
            if source:
                found[title] = source
    return [Paragraph(f"{title}: {source}") for title, source in found.items()]
