"""How good a meter is: clean images, every corruption of them, and `quality` of each statistic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reference_training.corruptions import SEVERITIES, corrupt, frost_source
from reference_training.evaluation.on_the_fly import CorruptionOptions, image_seeds
from reference_training.reporting.blocks import Table
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import write_json
from reference_training.runtime.workers import bar
from reference_training.uncertainty.agreement import GROUPS, quality
from reference_training.uncertainty.ledger import Ledger
from reference_training.uncertainty.meter import Meter
from reference_training.uncertainty.scores import STATISTICS

Json = dict[str, Any]
CLEAN = "clean"
BATCH = 100
"""Images corrupted together."""
ABSENT = "—"


def measure(
    meter: Meter,
    images: Tensor,
    *,
    source: Json,
    corruptions: Sequence[str],
    options: CorruptionOptions,
    seed: int,
    out: Path | None,
) -> Json:
    """Degrades clean images in every way, scores all, and says how well each statistic tells.

    Args:
        meter: what is measured.
        images: clean, uint8 (N, 3, crop, crop).
        source: JSON that says where they are from.
        corruptions: the types; each at severities 1 to 5.
        options: how images are degraded.
        seed: of the random corruptions: image number i of a run's evaluation has the same.
        out: where the result is written, as JSON; with it, a killed call continues.

    Returns:
        The result: below `statistics`, what `quality` returns for each.

    Raises:
        RunError: an option is wrong, or there are fewer than two images.
    """
    if len(images) < 2:
        raise RunError(f"only {len(images)} clean image; a measurement needs at least two.")
    try:
        about = {
            "meter": meter.identity,
            "clean": source | {"images": len(images)},
            "corruptions": vars(options)
            | {"names": list(corruptions), "frost": frost_source(options.frost), "seed": seed},
        }
        for name in corruptions:  # whatever an option is wrong about shows now
            corrupt(images[:1], name, 1, seeds=0, **vars(options))
    except (ValueError, FileNotFoundError) as error:
        raise RunError(str(error)) from error
    ledger = Ledger(out, about)
    sets = [(name, severity) for name in corruptions for severity in SEVERITIES]
    parts = torch.arange(len(images)).split(BATCH)
    with bar(len(images) * (1 + len(sets)), "image", "measuring") as progress:
        progress.initial = progress.n = (1 + len(sets)) * sum(map(len, parts[: len(ledger.rows)]))
        for positions in parts[len(ledger.rows) :]:
            clean, seeds = images[positions], image_seeds(seed, positions)
            row = {CLEAN: meter.score(clean)}
            progress.update(len(positions))
            for name, severity in sets:
                shown = corrupt(clean, name, severity, seeds=seeds, **vars(options))
                row[f"{name} {severity}"] = meter.score(shown)
                progress.update(len(positions))
            ledger.append(row)

    def scores(key: str, statistic: str) -> list[float]:
        return [value for row in ledger.rows for value in row[key][statistic]]

    result = about | {
        "statistics": {
            name: quality(
                scores(CLEAN, name), {one: scores(f"{one[0]} {one[1]}", name) for one in sets}
            )
            for name in meter.statistics
        }
    }
    if out is not None:
        write_json(out, result)
    ledger.close()
    return result


def quality_table(result: Json, statistic: str) -> Table:
    """One statistic, corruption by corruption."""
    found = result["statistics"][statistic]
    rows = [_row(name.replace("_", " "), one) for name, one in found["corruptions"].items()]
    rows += [_row(f"mean, {group}", found[group]) for group in GROUPS if found[group]]
    one = STATISTICS[statistic]
    return Table(
        header=(
            "AUROC",
            *(f"severity {severity}" for severity in SEVERITIES),
            "all",
            "ρ, all images",
            "ρ, same image",
        ),
        rows=tuple(rows),
        caption=f"{one.label} ({one.meaning}): clean against degraded",
        notes=(
            f"{found['images']} clean images and as many of each type and severity. AUROC: 0.5 is "
            "chance. ρ: Spearman's rank correlation with severity 1 to 5, over all images, and "
            "within each image, averaged.",
        ),
    )


def _row(name: str, one: Json) -> tuple[str, ...]:
    aurocs = (f"{value:.3f}" for value in (*one["auroc"], one["auroc_pooled"]))
    return (name, *aurocs, _signed(one["spearman"]), _signed(one["spearman_same_image"]))


def _signed(value: float | None) -> str:
    return ABSENT if value is None else f"{value:+.3f}".replace("-", "−")


def comparison_table(result: Json) -> Table:
    """All statistics beside each other: pooled AUROC by corruption, and the means."""
    found = result["statistics"]
    first = next(iter(found.values()))
    rows = [
        (
            name.replace("_", " "),
            *(f"{s['corruptions'][name]['auroc_pooled']:.3f}" for s in found.values()),
        )
        for name in first["corruptions"]
    ]
    groups = [group for group in GROUPS if first[group]]
    for key, title in (
        ("auroc_pooled", "AUROC"),
        ("spearman", "ρ, all images"),
        ("spearman_same_image", "ρ, same image"),
    ):
        show = _signed if key != "auroc_pooled" else "{:.3f}".format
        rows += [
            (f"{title}, mean, {group}", *(show(s[group][key]) for s in found.values()))
            for group in groups
        ]
    return Table(
        header=("AUROC, all severities", *(STATISTICS[name].label for name in found)),
        rows=tuple(rows),
        caption=f"What tells clean from degraded, on {first['images']} images",
        notes=tuple(f"{STATISTICS[name].label}: {STATISTICS[name].meaning}." for name in found),
    )
