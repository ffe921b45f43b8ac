"""A folder of images as its -C version: `OUT/fog/3/<the image's own path>`, ImageNet-C's layout."""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from tyro.conf import OmitArgPrefixes, Positional, arg

from reference_training.runtime.errors import RunError, check_at_least, check_known
from reference_training.runtime.files import read_json, reason, write_atomically, write_json
from reference_training.runtime.image_files import (
    check_no_splits,
    class_names,
    images_below,
    is_image,
    open_rgb,
    resize256_center224,
    some,
)
from reference_training.runtime.lock import sole_writer
from reference_training.runtime.stop import Interrupted
from reference_training.runtime.workers import pool, shared

from .batch import corrupt
from .checks import corruption_codes, position_seeds, severity_levels
from .frost import frost_source
from .options import CorruptionOptions
from .registry import CORRUPTIONS, GROUPS, SEVERITIES

PREPARATIONS: dict[str, Callable[[Image.Image], Image.Image] | None] = {
    "as_is": None,
    "imagenet": resize256_center224,
}
RECORD = "corruptions.json"
SOURCES = "sources.json"


def path_key(file: str) -> int:
    """63 bits of a path's SHA-256."""
    return int.from_bytes(hashlib.sha256(file.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Application:
    """Which images are corrupted, and how."""

    images: Annotated[Path, Positional, arg(metavar="IMAGES")]
    """The folder of images, at any depth, as IMAGES/class/*.jpg."""
    out: Annotated[Path, Positional, arg(metavar="OUT")]
    """The folder of the corrupted ones, as OUT/fog/3/class/*.png."""
    kinds: tuple[str, ...] = ("all",)
    """Which: names, or all (19), seen (15), unseen (4)."""
    severities: tuple[int, ...] = SEVERITIES
    """Which of 1 to 5."""
    jpeg85: bool = False
    """Write JPEGs of quality 85, as ImageNet-C's files are, instead of PNGs."""
    format: str | None = None
    """png or jpeg85; another way to say --jpeg85 or not."""
    preparation: str = "as_is"
    """as_is keeps each image's size; imagenet is Resize 256 and CenterCrop 224 before, as of
    ImageNet-C and of the evaluation on the fly."""
    seed: int = 0
    """Of all that is random."""
    seeds: str = "path"
    """path: an image's seed is made of its path below IMAGES, whatever else lies there; position:
    of its place in the order of the files, as the evaluation on the fly has it."""
    corruption: OmitArgPrefixes[CorruptionOptions] = field(default_factory=CorruptionOptions)
    jobs: int | None = None
    """Processes; one for each core by default."""


@dataclass(frozen=True)
class Task:
    """What becomes of an image, for a worker."""

    images: Path
    out: Path
    pairs: tuple[tuple[str, int], ...]
    jpeg: bool
    preparation: str
    options: dict[str, Any]

    def target(self, pair: tuple[str, int], file: str) -> Path:
        """Where the image under a corruption lies."""
        ending = ".JPEG" if self.jpeg else ".png"
        return (self.out / pair[0] / str(pair[1]) / file).with_suffix(ending)


ENDS = {".png": b"IEND\xaeB`\x82", ".JPEG": b"\xff\xd9"}
"""The last bytes of a whole file; what a crash cut off or left as zeros has others."""


def _whole(target: Path) -> bool:
    """Whether a file is there to its end; decoding millions would take as long as making them."""
    end = ENDS[target.suffix]
    try:
        with target.open("rb") as file:
            file.seek(-len(end), os.SEEK_END)
            return file.read() == end
    except OSError:  # there is none, or it is shorter
        return False


def check_sources(task: Task, files: list[str]) -> None:
    """Keeps what tells each image from another of its name, in the folder of the corrupted ones.

    Raises:
        RunError: an image that was corrupted is not the one that lies there now.
    """
    path = task.out / SOURCES
    before = read_json(path) if path.exists() else {}
    stats = {file: (task.images / file).stat() for file in files}
    now = {file: [stat.st_size, stat.st_mtime_ns] for file, stat in stats.items()}
    every = replace(task, pairs=tuple(product(CORRUPTIONS, SEVERITIES)))
    others = [
        file
        for file in files
        if before.get(file, now[file]) != now[file]
        and any(_whole(every.target(pair, file)) for pair in every.pairs)
    ]
    if others:
        raise RunError(
            f"{task.out} was made of other images named {some(others)}: their sizes or times of "
            "change differ. Remove what was made of them, or give another folder."
        )
    write_json(path, before | now)


def corrupt_file(task: Task, file: str, seed: int) -> tuple[int, list[str]] | str:
    """Writes those corruptions of an image that are not there yet, or are not whole.

    Returns:
        how many, and which of them were damaged; or why the image cannot be read or corrupted.

    Raises:
        RunError: a file cannot be written.
        Interrupted: the parent was asked to stop.
    """
    missing = [pair for pair in task.pairs if not _whole(task.target(pair, file))]
    targets = [task.target(pair, file) for pair in missing]
    damaged = [str(target.relative_to(task.out)) for target in targets if target.exists()]
    if not missing:
        return 0, damaged
    try:
        image = open_rgb(task.images / file)
    except Exception as error:  # damaged bytes make decoders raise anything
        return f"{task.images / file} cannot be read ({reason(error)})"
    prepare = PREPARATIONS[task.preparation]
    pixels = np.array(prepare(image) if prepare else image)
    for pair, target in zip(missing, targets, strict=True):
        if shared().stop.is_set():
            raise Interrupted
        try:
            corrupted = corrupt(pixels, *pair, seeds=seed, **task.options)
        except ValueError as error:
            return f"{task.images / file}: {error}"
        with io.BytesIO() as content:
            how = {"quality": 85, "optimize": True} if task.jpeg else {}
            Image.fromarray(corrupted).save(content, "JPEG" if task.jpeg else "PNG", **how)
            write_atomically(target, content.getvalue())
    return len(missing), damaged


def apply(given: Application) -> int:
    """Corrupts the folder, or what is left of it after a kill; returns how many files it wrote.

    Raises:
        RunError: an option is wrong, or does not fit what is already in the folder; or, once all
            others are done, images cannot be read or corrupted.
    """
    task = _task(given)
    files = images_below(given.images)
    order = {name: place for place, name in enumerate(class_names(given.images))}
    files.sort(key=lambda file: order.get(file.split("/")[0], -1))
    twice = [f for f, n in Counter(Path(file).with_suffix("") for file in files).items() if n > 1]
    if twice:
        raise RunError(
            f"{given.images} has more than one image named {some([str(f) for f in twice])}, and "
            "only the ending of their names tells them apart, which changes; rename one of each."
        )
    places = torch.arange(len(files))
    if given.seeds == "path":
        places = torch.tensor([path_key(file) for file in files])
    seeds = position_seeds(given.seed, places).tolist()
    record = {
        "seed": given.seed,
        "seeds": given.seeds,
        "files": hashlib.sha256("\n".join(files).encode()).hexdigest()
        if given.seeds == "position"
        else None,
        "jpeg85": task.jpeg,
        "preparation": task.preparation,
        "options": task.options | {"frost": frost_source(given.corruption.frost)},
    }
    with sole_writer(given.out):
        path = given.out / RECORD
        if path.exists() and (before := read_json(path)) != record:
            differing = [key for key in record if record[key] != before.get(key)]
            raise RunError(
                f"{given.out} was made with another choice of {', '.join(differing)} ({path}); "
                "give the same options, or another folder."
            )
        check_sources(task, files)
        write_json(path, record)
        with pool(given.jobs, threads=1, preload=__name__) as workers:
            tasks = [
                workers.executor.submit(corrupt_file, task, file, seed)
                for file, seed in zip(files, seeds, strict=True)
            ]
            results = list(workers.results(tasks, 0, unit="image", description="corrupting"))
    done = [result for result in results if not isinstance(result, str)]
    if damaged := [target for _, targets in done for target in targets]:
        print(f"damaged, and made anew ({len(damaged)} in all): {some(damaged)}")
    if broken := [result for result in results if isinstance(result, str)]:
        lines = "\n  ".join(broken)
        raise RunError(
            f"{len(broken)} of {len(files)} images were left out:\n  {lines}\nCopy them anew, or "
            "remove them, and run the same command again; the others are done."
        )
    return sum(count for count, _ in done)


def _task(given: Application) -> Task:
    """The options, checked."""
    if not given.images.is_dir():
        raise RunError(f"{given.images} is no folder; give the folder that holds the images.")
    if not any(is_image(entry.name) for entry in os.scandir(given.images)):
        check_no_splits(given.images, class_names(given.images))
    if given.out.resolve().is_relative_to(given.images.resolve()):
        raise RunError(f"{given.out} lies in the images' own folder; name another one.")
    check_known("--format", given.format or "png", ("png", "jpeg85"))
    check_known("--preparation", given.preparation, PREPARATIONS)
    check_known("--seeds", given.seeds, ("path", "position"))
    if given.jpeg85 and given.format == "png":
        raise RunError("--jpeg85 and --format png exclude each other; give one of them.")
    check_at_least(1, given, "jobs")
    kinds = dict.fromkeys(name for kind in given.kinds for name in GROUPS.get(kind, (kind,)))
    options = asdict(given.corruption)
    try:
        corruption_codes(list(kinds), len(kinds))
        levels = dict.fromkeys(severity_levels(given.severities, len(given.severities)))
        position_seeds(given.seed, torch.arange(1))
        corrupt(np.zeros((64, 64, 3), np.uint8), "contrast", 1, **options)
    except (ValueError, FileNotFoundError) as error:
        name, _, what = str(error).partition(":")
        names = {"corruption": "kinds", "severity": "severities"}
        raise RunError(f"--{names.get(name, name)}:{what}") from error
    pairs = tuple((kind, level) for kind in kinds for level in levels)
    jpeg = given.jpeg85 or given.format == "jpeg85"
    return Task(given.images, given.out, pairs, jpeg, given.preparation, options)
