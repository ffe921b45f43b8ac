"""Ranks a folder's images by predicted degradation: `... MODEL FOLDER`.

MODEL is the export of a finished run (`python -m reference_training.run --experiment table1/ulfd`),
or a training's folder as RUN/seed-0/ulfd@uem=official. The score is θ = exp(σ/2) of the
UEM, averaged over the network's feature (Sec. 4.4 of the paper); no clean image is needed.

With --measure, FOLDER holds clean images (by default the test images of the network's dataset).
They are degraded in 19 ways at 5 severities, and each score is compared with the truth.
"""

import sys
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor
from tyro.conf import Positional, arg

from reference_training.data import load
from reference_training.evaluation.sets import select_corruptions
from reference_training.evaluation.trained import test_images
from reference_training.runtime.command import exit_code
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import write_json
from reference_training.runtime.image_files import images_below
from reference_training.runtime.ranks import choose_device
from reference_training.uncertainty.meter import Meter, load_meter
from reference_training.uncertainty.quality import measure as measured
from reference_training.uncertainty.quality import quality_table
from reference_training.uncertainty.ranking import rank, read_images

IMAGES = 500


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


def execute(
    model: Annotated[Path, Positional, arg(metavar="MODEL")],
    folder: Annotated[Path | None, Positional, arg(metavar="FOLDER")] = None,
    out: Path | None = None,
    measure: bool = False,
    corruptions: tuple[str, ...] = ("all",),
    device: str | None = None,
) -> None:
    """Ranks or measures, and prints the result.

    Args:
        model: An export, or a training's folder (see above).
        folder: Images of any sizes, at any depth.
        out: Write every image's scores, or what was measured of them, there as JSON.
        measure: Measure instead of ranking (see above), on at most 500 images.
        corruptions: With --measure: names, or all (19), seen (15), unseen (4).
        device: As cuda:1; by default a GPU if there is one.
    """
    meter = load_meter(model, choose_device(device))
    if measure:
        names = select_corruptions(corruptions)
        rows = measured(meter, clean_images(folder, meter), names)
        text = quality_table(rows).terminal()
    elif folder is None:
        raise RunError("give the FOLDER whose images are to be ranked, after MODEL.")
    else:
        rows = rank(meter, folder)
        read = [row for row in rows if "error" not in row]
        lines = [f"{row['theta']:10.4g}  {row['file']!r}" for row in read]
        text = "\n".join([f"θ of {len(read)} images, the most degraded first:", *lines])
    if out is not None:
        write_json(out, rows)
    print(text)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    program = "python -m reference_training.uncertainty"
    return exit_code(lambda: tyro.cli(execute, prog=program, args=arguments, description=__doc__))


if __name__ == "__main__":
    sys.exit(main())
