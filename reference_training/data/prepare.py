"""`python -m reference_training.data.prepare IMAGENET OUT`: training images resized, once for all.

Resizing to 256×256 is the same in every epoch. OUT/train gets WebDataset shards of the resized
images of IMAGENET/train, for `--data-root OUT`: as PNG they train to the bit as the originals on a
CPU (on a GPU resizing may round otherwise). The order is the originals', and what cannot be decoded
is taken over as it is, so that the same seed draws the same pairs.
"""

import io
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from reference_training.data.photograph_pairs import leave_signals_to_the_rank
from reference_training.data.photographs import RECORD, Photographs, fingerprint, open_photographs
from reference_training.data.views import decode, resized
from reference_training.runtime.command import exit_code
from reference_training.runtime.errors import RunError, check_at_least
from reference_training.runtime.files import read_json, write_atomically, write_json
from reference_training.runtime.lock import sole_writer
from reference_training.runtime.workers import bar

TRAIN, UNFINISHED = "train", "train.part"


@dataclass(frozen=True)
class Preparation:
    """What is resized, and how it is stored."""

    images: Annotated[Path, tyro.conf.Positional]
    """The folder with train/: class folders or shards."""
    out: Annotated[Path, tyro.conf.Positional]
    """The new data root. What is unfinished there is continued; train/ appears at the end."""
    side: int = 256
    """Both sides in pixels: --resize of the trainings to come."""
    quality: int | None = None
    """JPEG's, without subsampled colours; by default PNG, which loses nothing."""
    per_shard: int = 1000
    """Images in a shard."""
    jobs: int = 8
    """Processes that decode and encode; 0 does it in this one."""


def encoded(image: torch.Tensor, quality: int | None) -> tuple[str, bytes]:
    """The ending and the content of a file with an image, uint8 (3, H, W)."""
    with io.BytesIO() as content:
        picture = Image.fromarray(image.movedim(0, -1).numpy())
        if quality is None:
            picture.save(content, "PNG")
            return "png", content.getvalue()
        picture.save(content, "JPEG", quality=quality, subsampling=0)
        return "jpeg", content.getvalue()


@dataclass(frozen=True)
class Squares(Dataset[tuple[str, bytes, str]]):
    """Each image resized and encoded: its ending, its content, and why it could not be decoded.

    The ending of one whose file cannot even be read is empty.
    """

    photographs: Photographs
    side: int
    quality: int | None

    def __getitem__(self, sample: int) -> tuple[str, bytes, str]:
        try:
            content = self.photographs.read(sample)
        except OSError as error:
            return "", b"", f"{error}"
        try:
            image = decode(content)
        except Exception as error:  # damaged bytes make decoders raise whatever they like
            return Path(self.photographs.name(sample)).suffix[1:], content, f"{error}"[:200]
        return *encoded(resized([image], self.side)[0], self.quality), ""


def _shard(files: Iterator[tuple[str, bytes]]) -> bytes:
    """A tar with nothing in it but names and contents, so the same each time."""
    with io.BytesIO() as content:
        with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as shard:
            for name, one in files:
                entry = tarfile.TarInfo(name)
                entry.size = len(one)
                shard.addfile(entry, io.BytesIO(one))
        return content.getvalue()


def prepare(given: Preparation) -> int:
    """Writes the shards that are missing; returns how many files could not be decoded among them.

    Raises:
        RunError: an option is wrong, the images are missing, OUT holds something else, or cannot be
            written.
    """
    check_at_least(1, given, "side", "per_shard")
    check_at_least(0, given, "jobs")
    if given.quality is not None and not 1 <= given.quality <= 100:
        raise RunError(f"--quality is {given.quality}, but must be from 1 to 100.")
    photographs = open_photographs(given.images / TRAIN)
    total, unfinished = len(photographs.labels), given.out / UNFINISHED
    how = {key: asdict(given)[key] for key in ("side", "quality", "per_shard")}
    record = {"sha256": fingerprint(photographs), "images": total, **how}
    with sole_writer(given.out):
        if (given.out / RECORD).exists():
            before = read_json(given.out / RECORD)
            changed = [key for key in record if before.get(key) != record[key]]
            if changed:
                raise RunError(
                    f"{given.out} was made with another {', '.join(changed)}; give the same "
                    "images and options, or another folder."
                )
        elif (given.out / TRAIN).exists():
            raise RunError(f"{given.out / TRAIN} is not of this command; give another folder.")
        write_json(given.out / RECORD, record)
        if (given.out / TRAIN).exists():
            return 0
        starts = range(0, total, given.per_shard)
        paths = [unfinished / f"{number:05d}.tar" for number in range(len(starts))]
        done = next((at for at, path in enumerate(paths) if not path.exists()), len(paths))
        first = done * given.per_shard
        loader = DataLoader(
            Squares(photographs, given.side, given.quality),
            batch_size=None,
            sampler=range(first, total),
            num_workers=given.jobs,
            worker_init_fn=leave_signals_to_the_rank,
        )
        squares, damaged = iter(loader), 0
        with bar(total, "image", "preparing") as progress:
            progress.initial = progress.n = first
            for start, path in list(zip(starts, paths, strict=True))[done:]:
                files = []
                for sample in range(start, min(start + given.per_shard, total)):
                    ending, content, error = next(squares)
                    name = photographs.name(sample)
                    if not ending:
                        raise RunError(f"{name} cannot be read: {error}. The same command goes on.")
                    if error:
                        damaged += 1
                        tqdm.write(f"{name}: {error}", file=sys.stderr)
                    label = str(int(photographs.labels[sample])).encode()
                    files += [(f"{sample:08d}.{ending}", content), (f"{sample:08d}.cls", label)]
                    progress.update(1)
                write_atomically(path, _shard(iter(files)))
        unfinished.rename(given.out / TRAIN)
    return damaged


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""

    def work() -> None:
        given = tyro.cli(Preparation, args=arguments, description=__doc__)
        damaged = prepare(given)
        kept = f"; {damaged} files cannot be decoded and are taken over" if damaged else ""
        print(f"{given.out / TRAIN}: for --data-root {given.out} --resize {given.side}{kept}")

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
