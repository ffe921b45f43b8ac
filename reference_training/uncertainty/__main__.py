"""Ranks a folder's images by predicted degradation: `... MODEL FOLDER`.

MODEL is the export of a finished run (`python -m reference_training.run --experiment table1/ulfd`),
or a training's folder as runs/fashion-mnist-subset/seed-0/ulfd. The score is θ = exp(σ/2) of the
UEM, averaged over the network's feature (Sec. 4.4 of the paper); no clean image is needed.

With --measure, FOLDER holds clean images (by default the test images of the network's dataset).
They are degraded in 19 ways at 5 severities, and each score is compared with the truth.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor
from tyro.conf import Positional, arg

from reference_training.data import load
from reference_training.evaluation.sets import select_corruptions
from reference_training.evaluation.trained import test_images
from reference_training.runtime.errors import RunError
from reference_training.runtime.image_files import images_below
from reference_training.runtime.ranks import choose_device
from reference_training.uncertainty.meter import Meter, load_meter
from reference_training.uncertainty.quality import measure, quality_table
from reference_training.uncertainty.ranking import rank, read_images

TOP, IMAGES = 20, 500


@dataclass(frozen=True)
class Options:
    """What to rank or to measure."""

    model: Annotated[Path, Positional, arg(metavar="MODEL")]
    """An export, or a training's folder (see above)."""
    folder: Annotated[Path | None, Positional, arg(metavar="FOLDER")] = None
    """Images of any sizes, at any depth."""
    out: Path | None = None
    """Write every file and score there, as .jsonl; a killed call then continues."""
    measure: bool = False
    """Measure instead of ranking (see above), on at most 500 images."""
    corruptions: tuple[str, ...] = ("all",)
    """With --measure: names, or all (19), seen (15), unseen (4)."""
    device: str | None = None
    """As cuda:1; by default a GPU if there is one."""


def clean_images(folder: Path | None, meter: Meter) -> Tensor:
    """At most `IMAGES` images to be degraded, uint8 (N, 3, crop, crop)."""
    if folder is None and meter.dataset is not None:
        return test_images(load(*meter.dataset), IMAGES)[0]
    if folder is None:
        raise RunError("give a FOLDER of clean images to measure with, after MODEL.")
    files = images_below(folder)
    _, squares = read_images(folder, files[:: -(-len(files) // IMAGES)], meter.view)
    if not squares:
        raise RunError(f"none of the {len(files)} images below {folder} can be read.")
    return torch.stack(squares)


def execute(given: Options) -> None:
    """Ranks or measures, and prints the result."""
    meter = load_meter(given.model, choose_device(given.device))
    if given.measure:
        names = select_corruptions(given.corruptions)
        rows = measure(meter, clean_images(given.folder, meter), names, given.out)
        print(quality_table(rows).terminal())
        return
    if given.folder is None:
        raise RunError("give the FOLDER whose images are to be ranked, after MODEL.")
    rows = [row for row in rank(meter, given.folder, given.out) if "error" not in row]
    print(f"θ of the most degraded of {len(rows)} images:")
    for row in rows[:TOP]:
        print(f"{row['theta']:10.4g}  {row['width']}x{row['height']}  {row['file']!r}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    program = "python -m reference_training.uncertainty"
    try:
        execute(tyro.cli(Options, prog=program, args=arguments, description=__doc__))
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; with --out, the same command continues.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
