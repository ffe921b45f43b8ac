"""A folder's images, the most degraded first."""

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from reference_training.data.views import CentralView
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import Row, continued, write_atomically
from reference_training.runtime.image_files import images_below, open_rgb
from reference_training.runtime.workers import bar
from reference_training.uncertainty.meter import Meter

BATCH = 64


def rank(meter: Meter, root: Path, out: Path | None = None) -> list[Row]:
    """Scores every image below a folder.

    Args:
        meter: what scores.
        root: the folder.
        out: where the rows are written, as .jsonl; a killed call then continues.

    Returns:
        A row for each file, by falling θ: `file`, `width`, `height`, and all of `Meter.score`.
        Files that cannot be read come last, with their `error` and no score.

    Raises:
        RunError: there is no image, or none that can be read; or `out` holds something else.
    """
    files = images_below(root)
    of = {"network": meter.identity, "folder": str(root.resolve())}
    rows, append = continued(out, of)
    status = {file: (root / file).lstat() for file in files}
    states = {file: [state.st_mtime_ns, state.st_size] for file, state in status.items()}
    rows = [row for row in rows if states.get(row["file"]) == row["state"]]
    missing = sorted(set(files) - {row["file"] for row in rows})
    with bar(len(files), "image", "scoring") as progress:
        progress.initial = progress.n = len(rows)
        for start in range(0, len(missing), BATCH):
            batch, squares = read_images(root, missing[start : start + BATCH], meter.view)
            scores = meter.score(torch.stack(squares)) if squares else {}
            for name, values in scores.items():
                read = (row for row in batch if "error" not in row)
                for row, value in zip(read, values, strict=True):
                    row[name] = value
            for row in batch:
                row |= {"state": states[row["file"]], "of": of}
            append(*batch)
            rows += batch
            progress.update(len(batch))
    rows.sort(key=lambda row: (-row.get("theta", 0), row["file"]))  # a θ is positive
    if out is not None:
        write_atomically(out, b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    if "error" in rows[0]:
        raise RunError(f"none of the {len(rows)} images below {root} can be read.")
    return rows


def read_images(
    root: Path, files: Sequence[str], view: CentralView
) -> tuple[list[Row], list[Tensor]]:
    """Reads files, several at once; nothing in them can end the program.

    Returns:
        For each its `file`, and `width` and `height` or an `error`; and the squares of those that
        could be read, each uint8 (3, crop, crop).
    """

    def read(file: str) -> tuple[Row, Tensor | None]:
        try:
            image = open_rgb(root / file, upright=True)
            return {"file": file, "width": image.width, "height": image.height}, view(image)
        except Exception as error:  # damaged bytes make decoders raise whatever they like
            message = f"{type(error).__name__}: {error}"[:200]
            tqdm.write(f"skipped {file!r}: {message}", file=sys.stderr)
            return {"file": file, "error": message}, None

    with ThreadPoolExecutor(8) as pool:  # each holds one image at its full size
        found = list(pool.map(read, files))
    return [row for row, _ in found], [square for _, square in found if square is not None]
