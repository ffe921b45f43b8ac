"""Writing files so that a reader finds the old content or the new one, never half of it."""

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_training.runtime.errors import RunError

Row = dict[str, Any]


def reason(error: BaseException) -> str:
    """An error's first line without colours (torch's have some), or its kind where it is empty."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip()
    return plain.split("\n")[0].rstrip(" .") or type(error).__name__


@contextlib.contextmanager
def reading(what: object, complaint: str, remedy: str) -> Iterator[None]:
    """Turns whatever a reader raises for a damaged file into one clear error.

    Damaged bytes make decoders raise anything: UnicodeDecodeError, KeyError, struct.error,
    RecursionError, AssertionError.

    Args:
        what: the file, for the message.
        complaint: what is wrong with it, as "cannot be read".
        remedy: how to go on.

    Raises:
        RunError: "<what> <complaint> (<reason>). <remedy>."
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"{what} {complaint} ({reason(error)}). {remedy}.") from error


DAMAGED = "is damaged", "Delete it and run the same command again"


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Writes beside `path`, syncs, and renames over it.

    Raises:
        RunError: the folder cannot be written, or the disk is full; `path` is as it was.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the folder itself may be out of reach
            temporary.unlink(missing_ok=True)
        raise RunError(
            f"cannot write {path}: {error.strerror or error}. Make room or choose another folder "
            "with --out; what was saved before is intact, and the same command continues from it."
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON value in `path`.

    Raises:
        RunError: the file is not JSON.
    """
    with reading(path, *DAMAGED):
        return json.loads(path.read_bytes())


@dataclass(frozen=True)
class JsonLines:
    """A file of JSON values, one a line, that survives being cut off in the middle of a line."""

    path: Path
    """Made on the first append."""
    sealed: bool = False
    """Whether each line, an object, carries a checksum. A line that was changed is then left out,
    which is said; what it held has to be computed again."""

    def read(self) -> list[Any]:
        """All whole lines; a torn last one is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]
        if not self.sealed:
            with reading(self.path, *DAMAGED):
                return [json.loads(line) for line in lines]
        rows = [row for line in lines if (row := _unsealed(line)) is not None]
        if len(rows) < len(lines):
            damaged = f"{len(lines) - len(rows)} of {len(lines)} lines do not fit their checksums"
            print(f"{self.path}: {damaged}; computing these again", file=sys.stderr)
        return rows

    def resume(self) -> list[Any]:
        """All whole lines, after cutting off a torn last one, to which the next would be glued."""
        rows = self.read()
        if self.path.exists():
            self._rewrite(rows)
        return rows

    def keep(self, count: int) -> None:
        """Cuts the file after its first `count` lines."""
        self._rewrite(self.read()[:count])

    def _rewrite(self, rows: list[Any]) -> None:
        write_atomically(self.path, b"".join(map(self._line, rows)))

    def _line(self, value: Any) -> bytes:
        return json.dumps(_sealed(value) if self.sealed else value).encode() + b"\n"

    def append(self, *values: Any) -> None:
        """Adds a line for each value, and syncs them."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.writelines(map(self._line, values))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(
                f"cannot write {self.path}: {error.strerror or error}. Make room and run the same "
                "command again; it continues from what was saved before."
            ) from error


def _sealed(value: dict[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    return value | {"sha256": digest[:16]}


def _unsealed(line: bytes) -> dict[str, Any] | None:
    """The value of a sealed line, or None if it is not what was written."""
    try:
        found = json.loads(line)
        value = {key: part for key, part in found.items() if key != "sha256"}
    except (ValueError, AttributeError, RecursionError):
        return None
    return value if found == _sealed(value) else None
