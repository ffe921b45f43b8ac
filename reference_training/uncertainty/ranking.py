"""A folder's images, the most degraded first."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from reference_training.data.views import CentralView
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import Row
from reference_training.runtime.image_files import images_below, open_rgb
from reference_training.runtime.workers import bar
from reference_training.uncertainty.meter import Meter

BATCH = 64


def rank(meter: Meter, root: Path) -> list[Row]:
    """Scores every image below a folder.

    Returns:
        A row for each file, by falling θ: `file` and all of `Meter.score`. Files that cannot be
        read come last, with their `error` and no score.

    Raises:
        RunError: there is no image, or none that can be read.
    """
    files = images_below(root)
    rows: list[Row] = []
    with bar(len(files), "image", "scoring") as progress:
        for start in range(0, len(files), BATCH):
            batch, squares = read_images(root, files[start : start + BATCH], meter.view)
            read = [row for row in batch if "error" not in row]
            scores = meter.score(torch.stack(squares)) if squares else {}
            for name, values in scores.items():
                for row, value in zip(read, values, strict=True):
                    row[name] = value
            rows += batch
            progress.update(len(batch))
    rows.sort(key=lambda row: (-row.get("theta", 0), row["file"]))  # a θ is positive
    if "error" in rows[0]:
        raise RunError(f"none of the {len(rows)} images below {root} can be read.")
    return rows


def read_images(
    root: Path, files: Sequence[str], view: CentralView
) -> tuple[list[Row], list[Tensor]]:
    """Reads files, several at once; nothing in them can end the program.

    Returns:
        For each a row with its `file`, and its `error` if it has one; and the squares of those that
        could be read, each uint8 (3, crop, crop).
    """

    def read(file: str) -> Tensor | str:
        try:
            return view(open_rgb(root / file, upright=True))
        except Exception as error:  # damaged bytes make decoders raise whatever they like
            tqdm.write(f"skipped {file!r}: {type(error).__name__}: {error}", file=sys.stderr)
            return f"{type(error).__name__}: {error}"[:200]

    with ThreadPoolExecutor(8) as pool:  # each holds one image at its full size
        found = list(pool.map(read, files))
    errors = ({"error": one} if isinstance(one, str) else {} for one in found)
    rows = [{"file": file, **error} for file, error in zip(files, errors, strict=True)]
    return rows, [square for square in found if isinstance(square, Tensor)]
