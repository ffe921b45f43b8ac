"""metrics.json → what the UEM predicted: θ against severity, its rank correlation, σ's range."""

from __future__ import annotations

from math import isnan
from statistics import fmean

from reference_training.corruptions import CORRUPTIONS, SEVERITIES
from reference_training.evaluation.ranking_metrics import rank_correlation
from reference_training.methods.trainings import label
from reference_training.reporting.blocks import ABSENT, Block, Paragraph, Table
from reference_training.reporting.comparison import seeds_phrase
from reference_training.reporting.measures import Json
from reference_training.reporting.statistics import cell


def uncertainty_tables(metrics: Json) -> list[Block]:
    """For each method with a UEM: θ against severity, its rank correlation, and σ's range."""
    blocks: list[Block] = []
    for method in metrics["methods"]:
        results = [r for r in metrics["results"][method].values() if r.get("uncertainty")]
        if not results:
            continue
        correlations = {name: _severity_correlations(results, name) for name in CORRUPTIONS}
        rows = []
        for name, rho in correlations.items():
            seeds = [result["uncertainty"]["corruptions"][name] for result in results]
            means = (f"{fmean(theta):.4f}" for theta in zip(*seeds, strict=True))
            rows.append((name.replace("_", " "), *means, cell(rho, signed=True)))
        # Five ranks in order give 1 up to rounding; the next lower value is 0.9.
        rising = [bool(rho) and min(rho.values()) > 0.95 for rho in correlations.values()]
        clean = fmean(result["uncertainty"]["clean"] for result in results)
        blocks.append(
            Table(
                header=("Corruption", *(f"Severity {s}" for s in SEVERITIES), "Spearman ρ"),
                rows=tuple(rows),
                caption=f"{label(method)}: predicted uncertainty θ = exp(σ/2), mean over images, "
                f"elements and seeds; clean images {clean:.4f}",
                notes=(
                    f"ρ: rank correlation of θ with severities 1 to 5, {seeds_phrase(metrics)}. "
                    f"θ rises at every step in every seed for {sum(rising)} of {len(rows)} "
                    f"corruptions. {ABSENT}: θ is constant, so it has no order.",
                ),
            )
        )
        if sigmas := [r["log_variance"] for r in results if r.get("log_variance")]:
            blocks.append(Paragraph(_log_variance_range(method, sigmas)))
    return blocks


def _severity_correlations(results: list[Json], corruption: str) -> dict[str, float]:
    """{position of the seed: Spearman's ρ of θ with severity}, without the undefined ones."""
    rows = (result["uncertainty"]["corruptions"][corruption] for result in results)
    rho = {str(seed): rank_correlation(SEVERITIES, row) for seed, row in enumerate(rows)}
    return {seed: value for seed, value in rho.items() if not isnan(value)}


def _log_variance_range(method: str, sigmas: list[Json]) -> str:
    degraded = [entry for s in sigmas for row in s["corruptions"].values() for entry in row]
    numbers = (
        f"{label(method)}: log-variance σ, on degraded images mean "
        f"{fmean(entry['mean'] for entry in degraded):.2f} and minimum "
        f"{min(entry['min'] for entry in degraded):.2f}, on clean images mean "
        f"{fmean(s['clean']['mean'] for s in sigmas):.2f} and minimum "
        f"{min(s['clean']['min'] for s in sigmas):.2f}."
    ).replace(" -", " −")
    return (
        f"{numbers} The loss is unbounded below where both features are 0: a minimum at the "
        "clamp's limit says that such elements exist."
    )
