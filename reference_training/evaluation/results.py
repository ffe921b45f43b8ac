"""The folder of an evaluation: what it is of, and one small file for each finished set."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from reference_training.data.samples import EvaluationSet
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import DAMAGED, read_json, reading, write_json
from reference_training.runtime.image_files import some

TOP = 5


@dataclass(frozen=True)
class Counts:
    """How many images of one set were recognised, and what tells these images from others."""

    images: int
    top1: int
    top5: int
    content: int = 0
    """The sum of the images' `checksum`."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(*map(sum, zip(astuple(self), astuple(other), strict=True)))


def checksum(images: Tensor) -> int:
    """The sum of the CRC-32 of uint8 images (B, 3, H, W): the same in any order and batches.

    Of larger images every few rows and columns, at least 32 of either, are looked at.
    """
    step = max(1, min(images.shape[2:]) // 32)
    return sum(zlib.crc32(image.tobytes()) for image in images[..., ::step, ::step].cpu().numpy())


class ResultFolder:
    """`evaluation.json`, and `sets/<corruption>-<severity>.json` for each finished set.

    Args:
        path: the folder.
        description: all that decides the results, as JSON.
        mark: what tells a set's images from others in their place.

    Raises:
        RunError: the folder holds results of something else, which must not be mixed with these.
    """

    def __init__(
        self, path: Path, description: Mapping[str, Any], mark: Callable[[EvaluationSet], str]
    ) -> None:
        self.path = path
        self.content = json.dumps(description, sort_keys=True)
        self.mark = mark
        header = path / "evaluation.json"
        if header.exists():
            before = read_json(header)
            if before != description:
                changes = some([*differences(before, description)], 3, "; ")
                raise RunError(
                    f"{path} holds the results of another evaluation: {changes}. Use another "
                    f"folder with --out, or delete {path} to start anew."
                )
        else:
            write_json(header, description)

    def _sealed(self, place: EvaluationSet, counts: Counts) -> dict[str, Any]:
        content = f"{self.content}{place}{self.mark(place)}{counts}"
        return asdict(counts) | {"fingerprint": hashlib.sha256(content.encode()).hexdigest()}

    def _file(self, place: EvaluationSet) -> Path:
        return self.path / "sets" / f"{place[0]}-{place[1]}.json"

    def read(self, place: EvaluationSet) -> Counts | None:
        """The counts of a finished set, or None.

        Raises:
            RunError: the file is damaged or belongs to another evaluation.
        """
        path = self._file(place)
        if not path.exists():
            return None
        with reading(path, *DAMAGED):
            content = read_json(path)
            counts = Counts(*(content[entry.name] for entry in fields(Counts)))
        if content != self._sealed(place, counts):
            raise RunError(
                f"{path} belongs to another evaluation than {self.path / 'evaluation.json'}, or it "
                "was edited, or the images have changed since; delete it and run the same command "
                "again."
            )
        return counts

    def write(self, place: EvaluationSet, counts: Counts) -> None:
        """Keeps the counts of a finished set."""
        write_json(self._file(place), self._sealed(place, counts))


ABSENT = object()


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """In words, where two JSON values differ; what one of them does not have "was absent"."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            inner = f"{name}.{key}" if name else str(key)
            yield from differences(before.get(key, ABSENT), now.get(key, ABSENT), inner)
    elif before != now:
        yield f"{name} was {_short(before)} and is now {_short(now)}"


def _short(value: Any) -> str:
    """As it is written, without the middle of a long one."""
    text = "absent" if value is ABSENT else repr(value)
    return text if len(text) <= 60 else f"{text[:28]}…{text[-28:]}"
