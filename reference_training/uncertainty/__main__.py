"""Ranks a folder's images by predicted degradation: `... MODEL FOLDER`.

MODEL is the export of a finished run (`python -m reference_training.run --experiment table1/ulfd`),
or a training's folder as runs/fashion-mnist-subset/seed-0/ulfd. FOLDER may hold images of any
sizes and formats that Pillow reads, at any depth. The score is the UEM's θ = exp(σ/2), averaged
over the elements of the network's feature (Sec. 4.4 of the paper); no clean image is needed.

With --measure, FOLDER holds clean images (or --dataset names some): they are degraded in 19 ways
at 5 severities, and each score is compared with the truth.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor
from tyro.conf import OmitArgPrefixes, Positional

from reference_training.data import load
from reference_training.evaluation.on_the_fly import SEEDS, CorruptionOptions
from reference_training.evaluation.sets import chosen_corruptions
from reference_training.evaluation.trained import test_images
from reference_training.runtime.errors import RunError
from reference_training.runtime.ranks import choose_device
from reference_training.uncertainty import measure as measuring
from reference_training.uncertainty.meter import Meter, load_meter
from reference_training.uncertainty.pictures import Picture, list_pictures, read_batches, shown
from reference_training.uncertainty.ranking import WRITERS, preparation_notes, rank, ranking_table
from reference_training.uncertainty.scores import STATISTICS
from reference_training.uncertainty.sheet import write_sheet


@dataclass(frozen=True)
class Options:
    """What to rank or to measure."""

    model: Annotated[Path, Positional, tyro.conf.arg(metavar="MODEL")]
    """An export, or a training's folder (see above)."""
    folder: Annotated[Path | None, Positional, tyro.conf.arg(metavar="FOLDER")] = None
    """The images."""
    statistic: str = "theta"
    """What to rank by: theta, log_variance (mean σ), or, without the UEM, confidence, activation,
    smoothness. All of them are written to --out."""
    top: int = 20
    """How many of the most degraded images the table shows."""
    out: Path | None = None
    """Write every file and score there, as .csv or .json; a killed call then continues. With
    --measure, the result as .json."""
    sheet: Path | None = None
    """Write a page of the most and the least degraded images there, as .html."""
    sheet_images: int = 24
    """How many from either end."""
    measure: bool = False
    """Measure instead of ranking (see above)."""
    dataset: str | None = None
    """With --measure: the test images of a dataset by name, instead of FOLDER; by default those
    that the network was trained for."""
    data_root: Path | None = None
    """The folder with the dataset's files, for those that are not embedded."""
    images: int = 500
    """With --measure: how many clean images at most; they stay in memory."""
    corruptions: tuple[str, ...] = ("all",)
    """With --measure: names, or all (19), seen (15), unseen (4)."""
    seed: int = 0
    """With --measure: of the random corruptions."""
    corruption: OmitArgPrefixes[CorruptionOptions] = field(default_factory=CorruptionOptions)
    batch_size: Annotated[int, tyro.conf.arg(aliases=["-b"])] = 64
    """Images of the folder computed at once."""
    threads: int = min(8, os.cpu_count() or 1)
    """Threads that read files; each holds one image at its full size."""
    device: str | None = None
    """As cuda:1; by default a GPU if there is one."""


def check(given: Options) -> None:
    """Raises RunError for what can be known to be wrong before anything is computed."""
    for name in ("top", "sheet_images", "images", "batch_size", "threads"):
        if getattr(given, name) < 1:
            option = name.replace("_", "-")
            raise RunError(f"--{option} is {getattr(given, name)}, but must be at least 1.")
    if given.statistic not in STATISTICS:
        raise RunError(f"--statistic is {given.statistic!r}; use one of {', '.join(STATISTICS)}.")
    if not 0 <= given.seed < SEEDS:
        raise RunError(f"--seed is {given.seed}, but must be from 0 to {SEEDS - 1}.")
    endings = [".json"] if given.measure else list(WRITERS)
    if given.out is not None and given.out.suffix not in endings:
        raise RunError(f"--out is {given.out}; its name must end in {' or '.join(endings)}.")
    if given.sheet is not None and given.sheet.suffix != ".html":
        raise RunError(f"--sheet is {given.sheet}; its name must end in .html.")
    if given.measure and given.sheet is not None:
        raise RunError("--sheet shows a ranking; leave it or --measure out.")
    if given.dataset is not None and (not given.measure or given.folder is not None):
        raise RunError("--dataset goes with --measure and without FOLDER.")
    if not given.measure and given.folder is None:
        raise RunError("give the FOLDER whose images are to be ranked, after MODEL.")


def clean_images(given: Options, meter: Meter) -> tuple[Tensor, dict[str, Any]]:
    """The images that are to be degraded, uint8 (N, 3, crop, crop), and where they are from."""
    if given.folder is None:
        name = given.dataset or meter.dataset
        if name is None:
            raise RunError("give a FOLDER of clean images, or --dataset, to measure with.")
        dataset = load(name, given.data_root)
        images, _ = test_images(dataset, given.images)
        if images.shape[-1] != meter.view.crop:
            raise RunError(
                f"{name} has {images.shape[-1]}x{images.shape[-1]} images, but {meter.name} "
                f"expects {meter.view.crop}x{meter.view.crop}; give a FOLDER of images instead."
            )
        return images, {"dataset": name, "sha256": dataset.sha256()}
    files = list_pictures(given.folder)
    files = files[:: -(-len(files) // given.images)]  # evenly over all, at most so many
    pictures = []
    for batch in read_batches(given.folder, [files], meter.view, given.threads):
        for one in batch:
            if isinstance(one, Picture):
                pictures.append(one)
            else:
                print(f"skipped {shown(one.file)}: {one.error}", file=sys.stderr)
    if not pictures:
        raise RunError(f"none of the {len(files)} images below {given.folder} can be read.")
    for note in preparation_notes(Counter(one.prepared for one in pictures)):
        print(note)
    return torch.stack([one.pixels for one in pictures]), {"folder": str(given.folder)}


def execute(given: Options) -> None:
    """Ranks or measures, and prints the tables."""
    check(given)
    meter = load_meter(given.model)
    if given.measure:
        meter = meter.beside_untrained()
    if given.statistic not in meter.statistics:
        raise RunError(
            f"{meter.name} does not give {given.statistic!r} here; use a --statistic of "
            f"{', '.join(meter.statistics)}, or, for those of the UEM, a network that was trained "
            "with one, as by ulfd."
        )
    meter = meter.to(choose_device(given.device))
    if given.measure:
        images, source = clean_images(given, meter)
        result = measuring.measure(
            meter,
            images,
            source=source,
            corruptions=chosen_corruptions(given.corruptions),
            options=given.corruption,
            seed=given.seed,
            out=given.out,
        )
        tables = [
            measuring.quality_table(result, given.statistic),
            measuring.comparison_table(result),
        ]
    else:
        assert given.folder is not None  # checked
        ranking = rank(
            meter,
            given.folder,
            statistic=given.statistic,
            batch_size=given.batch_size,
            threads=given.threads,
            out=given.out,
        )
        tables = [ranking_table(ranking, given.top)]
        if given.sheet is not None:
            write_sheet(ranking, given.sheet, given.sheet_images)
    for table in tables:
        print(table.terminal(), end="\n\n")
    for path in (given.out, given.sheet):
        if path is not None:
            print(f"written: {path}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    given = tyro.cli(
        Options,
        prog="python -m reference_training.uncertainty",
        args=arguments,
        description=__doc__,
    )
    try:
        execute(given)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = "what is finished is kept" if given.out else "with --out, what is finished is kept"
        print(f"\ninterrupted; {kept}, and the same command continues.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
