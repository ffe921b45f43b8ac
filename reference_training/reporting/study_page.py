"""The data of the study → its page: what holds up, what does not, how large against the spread."""

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from statistics import fmean

from reference_training.corruptions import CORRUPTIONS, SEEN, SEVERITIES, UNSEEN
from reference_training.evaluation.calibration import rank_correlation
from reference_training.methods.trainings import label, network_of
from reference_training.paper.study import PARTS, SHOW_UNCERTAINTY
from reference_training.reporting.blocks import (
    ABSENT,
    Block,
    Code,
    Heading,
    Paragraph,
    Table,
    markdown_document,
)
from reference_training.reporting.comparison import BASELINE, MSE, gain_over
from reference_training.reporting.measures import MEASURES, Json
from reference_training.reporting.statistics import RULE, cell


def page(
    found: Mapping[str, Json], weights: Mapping[str, Mapping[str, float]], conclusions: str
) -> str:
    """The page in Markdown.

    Args:
        found: {part: its data, as metrics.json}.
        weights: {part that chooses: {candidate: the chosen λ}}.
        conclusions: what a person read from the tables, in Markdown.
    """
    blocks: list[Block] = [
        Heading("The data"),
        Paragraph(
            "Made by the command at the end from the data beside this page (of each part a CSV "
            "with a row for each network and measure of it, where correct counts images, and a "
            "JSON file that says what was run); the plans were written before the runs (PLAN.md, "
            "PLAN_PHOTOGRAPHS.md). "
            "Top-1 in %, mean ± sample standard deviation over seeds. "
            f"{RULE}"
        ),
    ]
    for name, metrics in found.items():
        blocks += [Heading(f"{name}: {PARTS[name].question}"), accuracy_table(metrics)]
        if name in weights:
            chosen = ", ".join(f"{key} {value:g}" for key, value in weights[name].items())
            blocks.append(Paragraph(f"Chosen λ: {chosen}."))
    for name in SHOW_UNCERTAINTY:
        if name in found:
            blocks += [Heading(f"What the UEM says: {name}"), uncertainty_table(found[name])]
    blocks += [
        Heading("What the rows are"),
        *_sources(found.values()),
        Heading("Make it again"),
        Code(
            "python -m reference_training.experiments.study --data fashion-mnist=FOLDER "
            "cifar10=FOLDER imagenette=FOLDER tiny-imagenet=FOLDER"
        ),
        Paragraph("It continues where it was left; --tables makes this page from the data alone."),
    ]
    return f"# What holds up on a laptop\n\n{conclusions}\n\n{markdown_document(blocks)}"


def accuracy_table(metrics: Json) -> Table:
    """Rows: methods. Columns: clean, seen, unseen, high severities, gains over CE and over MSE."""
    measures = [MEASURES[key] for key in ("clean", "seen", "unseen", "high")]
    mse = next((name for name in metrics["methods"] if name.startswith(MSE)), MSE)
    gains = {
        "seen − CE": (BASELINE, MEASURES["seen"]),
        "seen − MSE": (mse, MEASURES["seen"]),
        "high − CE": (BASELINE, MEASURES["high"]),
    }
    rows = []
    for method in metrics["methods"]:
        cells = [cell(measure.by_seed(metrics["results"][method])) for measure in measures]
        cells += [gain_over(metrics, method, *against) for against in gains.values()]
        rows.append((label(method), *cells))
    return Table(
        ("Method", *(measure.title.lower() for measure in measures), *gains),
        tuple(rows),
        f"{metrics['dataset']}, {metrics['evaluation_images']} images, "
        f"{len(metrics['seeds'])} seeds",
        notes=(f"MSE: {label(mse)}.",) if mse in metrics["methods"] else (),
    )


UNCERTAINTY = {  # title: (a measure of the calibration, or ρ; over which corruptions)
    "ρ, seen": ("ρ", SEEN),
    "ρ, unseen": ("ρ", UNSEEN),
    "AUROC, seen": ("auroc", SEEN),
    "AUROC, unseen": ("auroc", UNSEEN),
    "mean (z − ẑ)² / exp(σ)": ("weighted_square", CORRUPTIONS),
    "ρ by image": ("image_rank_correlation", CORRUPTIONS),
    "ρ by element": ("element_rank_correlation", CORRUPTIONS),
}


def uncertainty_table(metrics: Json) -> Table:
    """Rows: methods with a UEM. Columns: order by severity, detection, calibration."""
    rows = []
    for method in metrics["methods"]:
        results = metrics["results"][method].values()
        if seeds := [result for result in results if result.get("calibration")]:
            cells = (_mean(seeds, *column) for column in UNCERTAINTY.values())
            rows.append((label(method), *cells))
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


def _mean(seeds: Sequence[Json], measure: str, names: Sequence[str]) -> str:
    """The mean over the seeds of the mean over the sets where the measure is defined."""
    means = []
    for result in seeds:
        if measure == "ρ":
            theta = result["uncertainty"]["corruptions"]
            values = [rank_correlation(SEVERITIES, theta[name]) for name in names]
        else:
            table = result["calibration"][measure]["corruptions"]
            values = [value for name in names for value in table[name]]
        if defined := [value for value in values if value is not None and not isnan(value)]:
            means.append(fmean(defined))
    return f"{fmean(means):.2f}" if means else ABSENT


def _sources(parts: Iterable[Json]) -> list[Block]:
    """Which rows are re-implementations in the style of something, and of what."""
    found = {}
    for method in dict.fromkeys(method for metrics in parts for method in metrics["methods"]):
        trained, adaptation = network_of(method)
        found[label(trained.method.name)] = trained.method.source
        found[adaptation.label] = adaptation.source
    return [Paragraph(f"{title}: {source}") for title, source in found.items() if source]
