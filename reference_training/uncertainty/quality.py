"""How well a meter tells how degraded an image is: AUROC and Spearman's ρ by corruption."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reference_training.corruptions import SEEN, SEVERITIES, UNSEEN, corrupt
from reference_training.corruptions.checks import position_seeds
from reference_training.evaluation.calibration import auroc, rank_correlation
from reference_training.reporting.blocks import Table
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import Row
from reference_training.runtime.workers import bar
from reference_training.uncertainty.meter import Meter

BATCH = 100  # images degraded and scored together


def measure(meter: Meter, images: Tensor, corruptions: Sequence[str]) -> list[Row]:
    """Degrades clean images at severities 1 to 5, and says how well each score of a meter tells.

    Args:
        meter: what is measured.
        images: clean, uint8 (N, 3, crop, crop); number i is degraded as in a run's evaluation.
        corruptions: the types.

    Returns:
        For each `corruption` a row with the number of `images`, and `scores`: for each of
        `Meter.score` what `quality` returns.

    Raises:
        RunError: images of this size cannot be corrupted.
    """
    sets = 1 + len(corruptions) * len(SEVERITIES)
    with bar(sets * len(images), "image", "scoring") as progress:

        def scored(name: str = "", severity: int = 0) -> dict[str, np.ndarray]:
            found = []
            for part in torch.arange(len(images)).split(BATCH):
                batch, seeds = images[part], position_seeds(0, part)
                if name:
                    batch = corrupt(batch, name, severity, seeds=seeds)
                found.append(meter.score(batch))
                progress.update(len(part))
            return {score: np.concatenate([row[score] for row in found]) for score in found[0]}

        clean, rows = scored(), []
        for name in corruptions:
            try:
                levels = [scored(name, severity) for severity in SEVERITIES]
            except (ValueError, FileNotFoundError) as error:
                raise RunError(str(error)) from error
            scores = {
                key: quality(clean[key], np.stack([row[key] for row in levels])) for key in clean
            }
            rows.append({"corruption": name, "images": len(images), "scores": scores})
    return rows


def quality(clean: np.ndarray, degraded: np.ndarray) -> Row:
    """Of a score that should be higher for degraded images, AUROC and ρ.

    Args:
        clean: (N,), the scores of clean images.
        degraded: (severities, N), of the same images in the same order.

    Returns:
        `auroc`, clean against degraded for each severity; `spearman`, ρ of score with severity
        within an image, averaged, where an image whose scores are all equal counts as 0.
    """
    within = [rank_correlation(image, SEVERITIES) for image in degraded.T]
    return {
        "auroc": [auroc(clean, row) for row in degraded],
        "spearman": float(np.nan_to_num(within).mean()),
    }


def quality_table(rows: Sequence[Row]) -> Table:
    """Every score by corruption, and the means over the paper's seen and unseen ones."""
    groups = {row["corruption"].replace("_", " "): [row] for row in rows}
    for title, names in (("mean, seen", SEEN), ("mean, unseen", UNSEEN)):
        groups[title] = [row for row in rows if row["corruption"] in names]

    def cell(members: Sequence[Row], score: str) -> str:
        found = [row["scores"][score] for row in members]
        area, rho = (np.mean([value[key] for value in found]) for key in ("auroc", "spearman"))
        return f"{area:.3f} {rho:+.2f}"

    scores = rows[0]["scores"]
    return Table(
        header=("AUROC, ρ", *scores),
        rows=tuple(
            (title, *(cell(members, score) for score in scores))
            for title, members in groups.items()
            if members
        ),
        caption="AUROC of clean against degraded images (0.5 is chance), and Spearman's ρ with "
        f"severity within an image: means on {rows[0]['images']} images",
    )
