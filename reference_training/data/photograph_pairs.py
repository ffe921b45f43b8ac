"""Training pairs from photographs: decoded in worker processes, the rest batched on the device.

Which sample, crop, flip and corruption: all of it is computed from the seed and the iteration, as
in `pairs`. A file that cannot be decoded is replaced by another draw.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass, replace
from signal import SIG_IGN, SIGINT, SIGTERM, signal
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reference_training.corruptions import corrupt
from reference_training.corruptions.random import Random
from reference_training.data.batch import Batch
from reference_training.data.photographs import AugmentedFolders, Photographs
from reference_training.data.sampling import pair_seeds, samples_at
from reference_training.data.second_images import (
    CORRUPTED,
    ENCODED,
    Draws,
    flipped,
    second_image,
)
from reference_training.data.views import (
    MEAN,
    STD,
    Views,
    cropped,
    decode,
    random_resized_crop,
    resized,
)
from reference_training.runtime.clock import Clock
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import JsonLines
from reference_training.runtime.ranks import World

ATTEMPTS = 100
"""Draws for one place in a batch, after which something else must be wrong than a few files."""
REPLACEMENTS = 1  # the domain of the draws for places whose file cannot be decoded


class Decoded(NamedTuple):
    """A batch as a worker sends it: few large tensors travel faster than many small ones."""

    pixels: Tensor  # uint8, one image after another, each (H, W, 3); augmented ones after theirs
    encoded: Tensor  # uint8 (E, 3, S, S), see `Draws`
    sizes: list[tuple[int, int]]  # H, W
    samples: Tensor  # int64 (B,)
    labels: Tensor  # int64 (B,)
    unreadable: list[tuple[str, str]]  # file, error


Made = tuple[Batch, list[tuple[str, str]]]
"""A batch, and the files that could not be decoded for it, each with the error."""


@dataclass(frozen=True)
class Slots(Dataset[Decoded | RunError]):
    """This rank's part of every iteration's batch, decoded; element t belongs to iteration t."""

    photographs: Photographs
    augmented: AugmentedFolders | None
    batch_size: int
    seed: int
    rank: int
    share: int
    second: str
    views: Views

    def positions(self, iteration: int) -> Tensor:
        """The places of this rank in the endless sequence of pairs."""
        first = iteration * self.batch_size + self.rank * self.share
        return torch.arange(first, first + self.share)

    def samples(self, positions: Tensor) -> Tensor:
        """The samples that are drawn for these places."""
        return samples_at(positions, seed=self.seed, total=len(self.photographs.labels))

    def __getitem__(self, iteration: int) -> Decoded | RunError:
        images, samples = [], []
        unreadable: dict[str, str] = {}
        drawn = self.samples(self.positions(iteration))
        try:
            for sample, found in self._readable(iteration, drawn, unreadable):
                images.extend(found)
                samples.append(sample)
        except RunError as error:
            return error  # raised here, it would arrive wrapped into a traceback
        taken = torch.tensor(samples)
        encoded = self._encoded(iteration, taken, images)
        return Decoded(
            torch.cat([image.flatten() for image in images]),
            encoded,
            [(image.shape[0], image.shape[1]) for image in images],
            taken,
            self.photographs.labels[taken],
            list(unreadable.items()),
        )

    def draws(self, iteration: int, samples: Tensor) -> tuple[Draws, Tensor, Tensor]:
        """What is random in these pairs; where they are cropped, (B, 2); whether they are flipped.

        Args:
            samples: those of this rank that can be read, int64 (B,).
        """
        seeds = pair_seeds(self.seed, torch.tensor(iteration), samples)
        random, views = Random(seeds), self.views
        corners = random.integers(0, views.side - views.crop + 1, 2)
        flip = random.uniform(1)[:, 0] < 0.5
        draws = Draws(seeds, random, self.positions(iteration), self.seed, views.corruptions)
        return draws, corners, flip

    def _encoded(self, iteration: int, samples: Tensor, images: list[Tensor]) -> Tensor:
        """The second images that are JPEGs, see `Draws`; of `images` these become squares."""
        views = self.views
        found = [torch.empty(0, 3, views.corrupted, views.corrupted, dtype=torch.uint8)]
        if self.second not in CORRUPTED:
            return found[0]
        draws, corners, _ = self.draws(iteration, samples)
        for place, (name, severity) in enumerate(zip(*draws.kinds(), strict=True)):
            if name != ENCODED:
                continue
            square = resized([images[place]], views.side)
            images[place] = square[0].permute(1, 2, 0)
            if views.kind != "corrupted_crop":
                top, left = corners[place, :, None]
                square = cropped(square, top, left, views.crop)
            one, options = draws.seeds[place, None], vars(views.corruptions.options)
            found.append(corrupt(square, name, severity, seeds=one, **options))
        return torch.cat(found)

    def _view(self, content: bytes, seed: Tensor) -> Tensor:
        image = decode(content)
        if self.views.kind != "resized_crop":
            return image
        return random_resized_crop(image, seed, self.views.crop)

    def _readable(
        self, iteration: int, drawn: Tensor, unreadable: dict[str, str]
    ) -> Iterator[tuple[int, list[Tensor]]]:
        seeds = pair_seeds(self.seed, torch.tensor(iteration), drawn)
        for sample, seed in zip(drawn.tolist(), seeds, strict=True):
            total = len(self.photographs.labels)
            others = Random(seed[None], domain=REPLACEMENTS).integers(0, total, ATTEMPTS)[0]
            for candidate in (sample, *others.tolist()):
                try:
                    found = [self._view(self.photographs.read(candidate), seed)]
                    if self.augmented is not None:
                        found.append(self._view(self.augmented.read(candidate, seed), seed))
                except Exception as error:  # damaged bytes make decoders raise whatever they like
                    unreadable[self.photographs.name(candidate)] = f"{error}"[:200]
                else:
                    yield candidate, found
                    break
            else:
                raise RunError(
                    f"{ATTEMPTS} files in a row cannot be decoded, the last of them "
                    f"{next(reversed(unreadable.items()))}; is the data what it should be?"
                )


@dataclass(eq=False)
class PhotographPairs:
    """The training batches of a run on photographs, this rank's part of them."""

    photographs: Photographs
    _: KW_ONLY
    batch_size: int
    """Pairs in a batch of all ranks together; a multiple of their number."""
    seed: int
    second: str
    """What the second image of each pair is; a key of `SECOND_IMAGES`."""
    views: Views
    channels_last: bool
    """The memory order of the batches."""
    workers: int
    """Decoding processes; 0 decodes in this one."""
    most_unreadable: int
    """Of so many files that cannot be decoded, the next ends the run."""
    unreadable: JsonLines
    """The file that names them."""
    world: World
    clock: Clock
    """Gets the time of the degradation."""
    second_views: int = 1
    """How many second images, see `second_image`."""
    deepaugmented: AugmentedFolders | None = None
    """DeepAugment's images of the photographs, if there are."""

    def __post_init__(self) -> None:
        share = self.batch_size // self.world.size
        self.slots = Slots(
            self.photographs,
            self.deepaugmented,
            self.batch_size,
            self.seed,
            self.world.rank,
            share,
            self.second,
            self.views,
        )
        self._mean = torch.tensor(MEAN, device=self.world.device).view(3, 1, 1)
        self._std = torch.tensor(STD, device=self.world.device).view(3, 1, 1)
        rows = self.world.on_main(self.unreadable.resume)
        self._known = {row["file"] for row in rows}
        self._new: dict[str, str] = {}

    def describe(self, iteration: int) -> dict[str, Any]:
        """The samples and files that were drawn for the whole batch."""
        size = self.batch_size
        positions = torch.arange(iteration * size, (iteration + 1) * size)
        samples = self.slots.samples(positions).tolist()
        return {"samples": samples, "files": [self.photographs.name(at) for at in samples]}

    def check(self) -> None:
        """Counts the files that could not be decoded, and names them in a file.

        Raises:
            RunError: they are too many.
        """
        everyone = self.world.gather_objects(self._new)
        self._new = {}
        found = {file: why for part in everyone for file, why in part.items()}
        for file in sorted(found.keys() - self._known):
            row = {"file": file, "error": found[file]}
            self.world.on_main(lambda row=row: self.unreadable.append(row))  # type: ignore[misc]
            self._known.add(file)
        if len(self._known) > self.most_unreadable:
            raise RunError(
                f"{len(self._known)} files cannot be decoded, among them {min(self._known)}; "
                f"{self.unreadable.path} names all. Mend them, or allow more with "
                "--most-unreadable."
            )

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """This rank's part of the batches of the iterations first, ..., last − 1."""
        loader = DataLoader(
            self.slots,
            batch_size=None,
            sampler=range(first, last),
            num_workers=self.workers,
            pin_memory=self.world.device.type == "cuda",
            worker_init_fn=leave_signals_to_the_rank,
        )
        made = self._made(first, last, loader)
        if self.world.device.type == "cuda":
            made = ahead(made, self.world.device)
        for batch, unreadable in made:
            self._new |= dict(unreadable)
            yield batch

    def _made(self, first: int, last: int, loader: DataLoader[Any]) -> Iterator[Made]:
        arriving = iter(loader)
        try:
            for iteration in range(first, last):
                with self.clock.waiting("data"):
                    decoded = next(arriving)
                if isinstance(decoded, RunError):
                    raise decoded
                with self.clock.part("degradation"):
                    batch = self._pairs(iteration, decoded)
                yield batch, decoded.unreadable
        finally:
            del arriving  # the workers end now, and not when a traceback is forgotten

    def _pairs(self, iteration: int, decoded: Decoded) -> Batch:
        device, views, slots = self.world.device, self.views, self.slots
        pixels = decoded.pixels.to(device, non_blocking=True)
        parts = pixels.split([height * width * 3 for height, width in decoded.sizes])
        images = [part.view(*size, 3) for part, size in zip(parts, decoded.sizes, strict=True)]

        draws, *places = slots.draws(iteration, decoded.samples)
        corners, flip = (each.to(device, non_blocking=True) for each in places)
        each = len(images) // len(draws.seeds)  # 2 if there are augmented ones
        squares = [resized(images[place::each], views.side) for place in range(each)]

        def crop(squares: Tensor) -> Tensor:
            return cropped(squares, corners[:, 0], corners[:, 1], views.crop)

        corrupted_first = views.kind == "corrupted_crop"
        clean, *augmented = squares if corrupted_first else map(crop, squares)
        encoded = decoded.encoded.to(device, non_blocking=True)
        draws = replace(draws, deepaugmented=augmented[0] if augmented else None, encoded=encoded)
        second = second_image(self.second, clean, draws, self.second_views)
        pairs = [clean] if second is clean else [clean, second]
        if corrupted_first:
            pairs = [crop(images) for images in pairs]
        batch = [self.normalised(flipped(images, flip)) for images in pairs]
        labels = decoded.labels.to(device, non_blocking=True)
        return Batch(batch[0], batch[-1], labels)

    def normalised(self, images: Tensor) -> Tensor:
        """Grey levels (B, ..., 3, H, W) as networks expect them, in the batches' memory order."""
        scaled = (images / 255 - self._mean) / self._std
        if not self.channels_last or scaled.dim() != 4:
            return scaled.contiguous()
        return scaled.contiguous(memory_format=torch.channels_last)


def ahead(made: Iterator[Made], device: torch.device) -> Iterator[Made]:
    """Each batch made while the one before is trained on: by a thread, on a CUDA stream of its own.

    The first is made in the caller's thread, which thus starts the worker processes too. On a CPU
    it is the thread alone.
    """
    cuda = device.type == "cuda"
    stream = torch.cuda.Stream(device) if cuda else None

    def make() -> tuple[Made | None, Any]:
        with torch.cuda.stream(stream) if cuda else nullcontext():
            return next(made, None), stream.record_event() if stream else None

    if stream is not None:  # what was made for all batches must be there
        stream.wait_stream(torch.cuda.current_stream(device))
    with ThreadPoolExecutor(1) as thread:
        coming, ready = make()
        while coming is not None:
            if cuda:
                now = torch.cuda.current_stream(device)
                now.wait_event(ready)
                for tensor in coming[0]:
                    tensor.record_stream(now)  # or its memory could be given away too early
            following = thread.submit(make)
            yield coming
            coming, ready = following.result()


def leave_signals_to_the_rank(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal, and a queue's SIGTERM all of a job: the rank
    wants to save, and must not lose its workers before."""
    for number in (SIGINT, SIGTERM):
        signal(number, SIG_IGN)
