"""metrics.json → tables of methods, of one run or of several; `statistics` says what is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan
from statistics import fmean

from reference_training.corruptions import CORRUPTIONS, SEEN, SEVERITIES, UNSEEN
from reference_training.evaluation.calibration import rank_correlation
from reference_training.methods.base import VANILLA
from reference_training.methods.trainings import label
from reference_training.reporting import statistics
from reference_training.reporting.blocks import ABSENT, Block, Paragraph, Table
from reference_training.reporting.measures import (
    MEASURES,
    Json,
    Measure,
    Results,
    vanilla_errors,
)
from reference_training.reporting.result_tables import (
    NOTE,
    PREFIX,
    paper_cells,
    paper_gain,
    paper_number,
)
from reference_training.reporting.statistics import RULE, Values, cell, gain, paired

BASELINE, MSE, ULFD = "cross_entropy", "feature_distillation", "ulfd"
MAIN = ("clean", "seen", "unseen", "error")
COMPARED = ("clean", "seen", "unseen", "mce")
SEEN_TOP1 = MEASURES["seen"]
GAIN = "Seen − that of CE ↑"
MCE = MEASURES["mce"].heading("vanilla")
MCE_NOTE = (
    "mCE: the mean over the seen corruptions of a network's error divided by that of the "
    "vanilla network of the same seed, times 100 (both summed over the severities)."
)
GAIN_NOTE = f"Seen − that of CE: in points, CE is “{label(BASELINE)}” of the same run. {RULE}"

UNBOUNDED = (
    "The loss is unbounded below where both features are 0: a minimum at the clamp's limit says "
    "that such elements exist."
)


def main_table(runs: Mapping[str, Json], *, paper: bool = True) -> Table:
    """Rows: every method of every run. Columns: measures, mCE, and the paper's numbers.

    Several runs are told apart by name, data and number of seeds, and show the gain over cross
    entropy. A column without any number is left out.

    Args:
        runs: {name: the content of metrics.json}.
        paper: whether the paper's numbers stand beside.
    """
    records: list[dict[str, str]] = []
    notes: list[str] = []
    several = len(runs) > 1
    for name, metrics in runs.items():
        methods: Mapping[str, Results] = {m: metrics["results"][m] for m in metrics["methods"]}
        try:
            errors = vanilla_errors(metrics)
            mce = {m: MEASURES["mce"].by_seed(results, errors) for m, results in methods.items()}
        except ValueError as error:
            mce = {}
            notes.append(f"{name} has no normalised mCE: {error}")
        for method, results in methods.items():
            record = {"Method": label(method)}
            if several:
                record |= {"Run": name, "Data": metrics["dataset"], "Seeds": str(len(results))}
            record |= {
                MEASURES[key].heading(): cell(MEASURES[key].by_seed(results)) for key in MAIN
            }
            record[MCE] = cell(mce.get(method, {}))
            if several:
                record[GAIN] = gain_over(metrics, method, BASELINE)
            records.append(record | (paper_cells(method) if paper else {}))
    titles = [name for name in records[0] if {record[name] for record in records} != {ABSENT}]
    if several and len({metrics["dataset"] for metrics in runs.values()}) == 1:
        titles.remove("Data")
    seeds = "mean ± sample standard deviation over the seeds"
    if not several:
        (metrics,) = runs.values()
        seeds = f"{metrics['evaluation_images']} test images, {seeds_phrase(metrics)}"
    explained = {MCE: MCE_NOTE, GAIN: GAIN_NOTE}
    notes += [note for title, note in explained.items() if title in titles]
    notes += [NOTE] if titles[-1].startswith(PREFIX) else []
    return Table(
        header=tuple(titles),
        rows=tuple(tuple(record[name] for name in titles) for record in records),
        caption=f"Top-1 accuracy and error in %, {seeds}",
        notes=tuple(notes),
        words=sum(name in ("Method", "Run", "Data") for name in titles),
    )


def difference_tables(metrics: Json) -> list[Table]:
    """One for each rival of `compared_pairs`. Rows: methods. Columns: their gains in points."""
    tables: dict[str, list[tuple[str, ...]]] = {}
    for method, rival in compared_pairs(metrics):
        cells = [gain_over(metrics, method, rival, MEASURES[key]) for key in COMPARED]
        paper = paper_gain(*(paper_number(name, SEEN_TOP1) for name in (method, rival)))
        tables.setdefault(rival, []).append((label(method), *cells, paper))
    header = ("Method", *(MEASURES[key].heading() for key in COMPARED), "Paper: Seen ↑")
    note = (
        f"{RULE} mCE: vanilla = 100. Paper: Tables 1 and 6a, ImageNet, ResNet-50; one printed "
        "number each, no spread."
    )
    return [
        Table(header, tuple(rows), f"Paired differences to “{label(rival)}”, points", (note,))
        for rival, rows in tables.items()
    ]


def verdicts(metrics: Json) -> list[str]:
    """Did the run's first ULFD beat its rivals in Seen, by the rule of `statistics`?"""
    ours = next((name for name in metrics["methods"] if _kind(name) == ULFD), ULFD)
    rivals = [rival for name, rival in compared_pairs(metrics) if name == ours]
    if paired(*values_of(metrics, ours, VANILLA)):
        rivals.append(VANILLA)
    found = []
    for rival in rivals:
        values, names = values_of(metrics, ours, rival), (f"“{label(ours)}”", f"“{label(rival)}”")
        found.append(statistics.verdict(*values, *names, unit="points of seen top-1"))
    return found or ["No verdict: this run has no ULFD beside cross entropy or the MSE."]


def corruption_table(metrics: Json) -> Table:
    """Each method's top-1 of each corruption, mean over severities and seeds."""
    rows = []
    for method in metrics["methods"]:
        tops = [result["corruptions"] for result in metrics["results"][method].values()]
        means = (fmean(fmean(top1[name]) for top1 in tops) for name in CORRUPTIONS)
        rows.append((label(method), *(f"{100 * mean:.1f}" for mean in means)))
    names = (f"{name.replace('_', ' ')}{' (unseen)' * (name in UNSEEN)}" for name in CORRUPTIONS)
    return Table(
        header=("Method", *names),
        rows=tuple(rows),
        caption="Top-1 of each corruption, %, mean over severities and seeds",
    )


def detection_table(metrics: Json) -> Table:
    """What an uncertainty is good for: its order in training, and detecting degraded images.

    Rows: methods. A run of before these were measured has dashes.
    """
    kinds = {"seen": SEEN, "unseen": UNSEEN}
    rows, backwards = [], []
    for method in metrics["methods"]:
        results = metrics["results"][method]
        logs = {seed: log for seed, r in results.items() if (log := r.get("rank_correlation"))}
        ends = ({seed: log[at] for seed, log in logs.items()} for at in (0, -1))
        theta = {seed: (r.get("calibration") or {}).get("auroc") for seed, r in results.items()}
        softmax = {seed: r.get("auroc_max_softmax") for seed, r in results.items()}
        found = [_over(table, names) for names in kinds.values() for table in (theta, softmax)]
        rows.append((label(method), *(cell(v, signed=True) for v in ends), *map(cell, found)))
        if any(auroc and fmean(auroc.values()) < 50 for auroc in found[::2]):
            backwards.append(label(method))
    notes = [
        "ρ: Spearman's correlation of σ with (z − ẑ)² in the first and in the last line of the "
        "training's log; below 0 the largest errors weigh most. AUROC: clean against degraded "
        "images by θ, which needs the UEM at test time, or by 1 − the largest softmax output; "
        "mean over corruptions and severities, 50 is chance."
    ]
    if backwards:
        notes.append(
            f"Below 50, θ is larger on clean images; do not detect with it: {', '.join(backwards)}."
        )
    scores = (f"{score}, {kind}" for kind in kinds for score in ("θ", "max-softmax"))
    return Table(
        header=("Method", "ρ, start", "ρ, end", *scores),
        rows=tuple(rows),
        caption="What the uncertainty knows: ρ in training, and AUROC in %",
        notes=tuple(notes),
    )


def _over(tables: Mapping[str, Json | None], names: Iterable[str]) -> Values:
    """{seed: the mean over these corruptions in %}, of the seeds that have a whole table."""
    values = {
        seed: [at for name in names for at in table["corruptions"][name]]
        for seed, table in tables.items()
        if table
    }
    return {seed: 100 * fmean(at) for seed, at in values.items() if None not in at}


def uncertainty_tables(metrics: Json) -> list[Block]:
    """For each method with a UEM: θ against severity, its rank correlation, and σ's range."""
    blocks: list[Block] = []
    for method in metrics["methods"]:
        results = [r for r in metrics["results"][method].values() if r.get("uncertainty")]
        if not results:
            continue
        rows, rising = [], 0
        for name in CORRUPTIONS:
            seeds = [result["uncertainty"]["corruptions"][name] for result in results]
            means = (f"{fmean(theta):.4f}" for theta in zip(*seeds, strict=True))
            orders = {str(s): rank_correlation(SEVERITIES, row) for s, row in enumerate(seeds)}
            rho = {seed: order for seed, order in orders.items() if not isnan(order)}
            rows.append((name.replace("_", " "), *means, cell(rho, signed=True)))
            # Five ranks in order give 1 up to rounding; the next lower value is 0.9.
            rising += bool(rho) and min(rho.values()) > 0.95
        clean = fmean(result["uncertainty"]["clean"] for result in results)
        blocks.append(
            Table(
                header=("Corruption", *(f"Severity {s}" for s in SEVERITIES), "Spearman ρ"),
                rows=tuple(rows),
                caption=f"{label(method)}: predicted uncertainty θ = exp(σ/2), mean over images, "
                f"elements and seeds; clean images {clean:.4f}",
                notes=(
                    f"ρ: rank correlation of θ with severities 1 to 5, {seeds_phrase(metrics)}. "
                    f"θ rises at every step in every seed for {rising} of {len(rows)} "
                    f"corruptions. {ABSENT}: θ is constant, so it has no order.",
                ),
            )
        )
        if sigmas := [r["log_variance"] for r in results if r.get("log_variance")]:
            degraded = [at for s in sigmas for row in s["corruptions"].values() for at in row]
            ranges = {"degraded": degraded, "clean": [s["clean"] for s in sigmas]}
            said = (
                f"on {kind} images mean {fmean(at['mean'] for at in found):.2f} and minimum "
                f"{min(at['min'] for at in found):.2f}"
                for kind, found in ranges.items()
            )
            numbers = f"{label(method)}: log-variance σ, {', '.join(said)}.".replace(" -", " −")
            blocks.append(Paragraph(f"{numbers} {UNBOUNDED}"))
    return blocks


def values_of(
    metrics: Json, first: str, second: str, measure: Measure = SEEN_TOP1
) -> tuple[Values, Values]:
    """A measure of two methods, {seed: %} each; empty if the run has not what it takes."""
    errors = vanilla_errors(metrics) if measure.normalised and VANILLA in metrics["results"] else {}
    results = (metrics["results"].get(name, {}) for name in (first, second))
    ours, theirs = (measure.by_seed(result, errors) for result in results)
    return ours, theirs


def gain_over(metrics: Json, method: str, base: str, measure: Measure = SEEN_TOP1) -> str:
    """The cell of a method's gain over another one of the run; a dash for that one itself."""
    if method == base:
        return ABSENT
    pair = values_of(metrics, method, base, measure)
    return gain(*pair, lower_is_better=measure.lower_is_better)


def compared_pairs(metrics: Json) -> list[tuple[str, str]]:
    """(method, rival): each ULFD with the first MSE, all distillations with cross entropy.

    Only those of which the run has both, with a seed in common.
    """
    ours = [name for name in metrics["methods"] if _kind(name) in (ULFD, MSE)]
    rival = next((name for name in ours if _kind(name) == MSE), MSE)
    pairs = [(name, rival) for name in ours if _kind(name) == ULFD]
    pairs += [(name, BASELINE) for name in ours]
    return [pair for pair in pairs if paired(*values_of(metrics, *pair))]


def _kind(name: str) -> str:
    """The method of a network's name."""
    return name.partition("+")[0].partition("@")[0]


def seeds_phrase(metrics: Json) -> str:
    """What a ± of a run is, for captions."""
    counts = sorted({len(metrics["results"][name]) for name in metrics["methods"]})
    if counts == [1]:
        return "one seed, no spread"
    counted = " or ".join(map(str, counts))
    return f"mean ± sample standard deviation over {counted} seeds"
