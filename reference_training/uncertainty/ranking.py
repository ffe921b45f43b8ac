"""A folder's images, the most degraded first."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from reference_training.reporting.blocks import Table
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import write_atomically, write_json
from reference_training.runtime.workers import bar
from reference_training.uncertainty.ledger import Ledger
from reference_training.uncertainty.meter import Meter
from reference_training.uncertainty.pictures import (
    Picture,
    Unreadable,
    fingerprint,
    list_pictures,
    read_batches,
    shown,
)
from reference_training.uncertainty.scores import STATISTICS

NAME_WIDTH = 60


@dataclass(frozen=True)
class Scored:
    """An image file and what was found."""

    file: str
    width: int
    height: int
    prepared: str
    scores: dict[str, float]


@dataclass(frozen=True)
class Ranking:
    """The images of a folder, by one statistic, highest first."""

    root: Path
    meter: Meter
    statistic: str
    images: tuple[Scored, ...]
    unreadable: tuple[Unreadable, ...]

    def score(self, image: Scored) -> float:
        """What the images are ranked by."""
        return image.scores[self.statistic]


def rank(
    meter: Meter, root: Path, *, statistic: str, batch_size: int, threads: int, out: Path | None
) -> Ranking:
    """Scores every image below a folder; with `out`, a killed call continues where it stopped.

    Raises:
        RunError: there is no image, or none that can be read.
    """
    files = list_pictures(root)
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    about = {
        "meter": meter.identity,
        "files_sha256": fingerprint(root, files),
        "batch_size": batch_size,
    }
    ledger = Ledger(out, about)
    done = len(ledger.rows)
    with bar(len(files), "image", "scoring") as progress:
        progress.initial = progress.n = sum(map(len, batches[:done]))
        for found in read_batches(root, batches[done:], meter.view, threads):
            ledger.append(_row(meter, found))
            progress.update(len(found))
    images = [Scored(**entry) for row in ledger.rows for entry in row["images"]]
    unreadable = [Unreadable(**entry) for row in ledger.rows for entry in row["unreadable"]]
    if not images:
        ledger.close()
        first = unreadable[0]
        raise RunError(
            f"none of the {len(files)} images below {root} can be read; {shown(first.file)}: "
            f"{first.error}."
        )
    images.sort(key=lambda image: (-image.scores[statistic], image.file))
    ranking = Ranking(root, meter, statistic, tuple(images), tuple(unreadable))
    if out is not None:
        WRITERS[out.suffix](ranking, out)
    ledger.close()
    return ranking


def _row(meter: Meter, found: Sequence[Picture | Unreadable]) -> dict[str, Any]:
    pictures = [one for one in found if isinstance(one, Picture)]
    unreadable = [one for one in found if isinstance(one, Unreadable)]
    for one in unreadable:
        tqdm.write(f"skipped {shown(one.file)}: {one.error}", file=sys.stderr)
    columns = meter.score(torch.stack([one.pixels for one in pictures])) if pictures else {}
    images = [
        Scored(one.file, *one.size, one.prepared, {name: columns[name][at] for name in columns})
        for at, one in enumerate(pictures)
    ]
    return {"images": list(map(asdict, images)), "unreadable": list(map(asdict, unreadable))}


def ranking_table(ranking: Ranking, top: int) -> Table:
    """The `top` most degraded images."""
    names = (ranking.statistic, *(n for n in ranking.meter.statistics if n != ranking.statistic))
    rows = [
        (
            _shortened(shown(one.file)),
            f"{one.width}x{one.height}",
            *(f"{one.scores[name]:.4g}".replace("-", "−") for name in names),
        )
        for one in ranking.images[:top]
    ]
    first = STATISTICS[ranking.statistic]
    scores = [ranking.score(one) for one in ranking.images]
    skipped = f" {len(ranking.unreadable)} files could not be read." if ranking.unreadable else ""
    return Table(
        header=("Image", "Pixels", *(STATISTICS[name].label for name in names)),
        rows=tuple(rows),
        caption=f"The {len(rows)} most degraded of {len(scores)} images below {ranking.root}, by "
        f"{first.label}: {first.meaning}",
        notes=(
            f"{first.label}: from {min(scores):.4g} to {max(scores):.4g}, median "
            f"{median(scores):.4g}.{skipped}",
            *preparation_notes(Counter(one.prepared for one in ranking.images)),
            "What an image shows changes its score too: compare images of the kind that the "
            "network was trained on. --measure tells how far the score can be trusted.",
        ),
    )


def preparation_notes(counts: Counter[str]) -> tuple[str, ...]:
    """What was done to the images before the network saw them, and what it hides."""
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    done = "; ".join(f"{count} {what}" for what, count in ordered)
    notes = [f"What the network saw: {done}."]
    if any(what.startswith("shrunk") for what in counts):
        notes.append("Shrinking hides what is finer than the new pixels, as noise and light blur.")
    if any(what.startswith("enlarged") for what in counts):
        notes.append("Enlarging blurs, and the scores of enlarged images tell of that too.")
    return tuple(notes)


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else "…" + name[1 - NAME_WIDTH :]


def _write_csv(ranking: Ranking, out: Path) -> None:
    text = io.StringIO()
    rows = csv.writer(text)
    names = ranking.meter.statistics
    rows.writerow(["rank", "file", *names, "width", "height", "prepared", "error"])
    for number, one in enumerate(ranking.images, start=1):
        scores = (repr(one.scores[name]) for name in names)
        rows.writerow([number, one.file, *scores, one.width, one.height, one.prepared, ""])
    for bad in ranking.unreadable:
        rows.writerow(["", bad.file, *("" for _ in names), "", "", "", bad.error])
    write_atomically(out, text.getvalue().encode("utf-8", "surrogateescape"))


def _write_json(ranking: Ranking, out: Path) -> None:
    value = {
        "folder": str(ranking.root),
        "meter": ranking.meter.identity,
        "statistic": ranking.statistic,
        "meanings": {name: STATISTICS[name].meaning for name in ranking.meter.statistics},
        "images": list(map(asdict, ranking.images)),
        "unreadable": list(map(asdict, ranking.unreadable)),
    }
    write_json(out, value)


WRITERS = {".csv": _write_csv, ".json": _write_json}
"""How a ranking is written, by the name of the file."""
