"""Writing files so that a reader finds the old content or the new one, never half of it."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reference_training.runtime.errors import RunError


def reason(error: BaseException) -> str:
    """An error's first line, or its kind where it says nothing."""
    return str(error).strip().split("\n")[0] or type(error).__name__


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


def write_atomically(path: Path, content: bytes) -> None:
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


class JsonLines:
    """A file of JSON values, one a line, that survives being cut off in the middle of a line.

    Args:
        path: the file; made on the first append.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Any]:
        """All whole lines; a torn last one is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]
        with reading(self.path, *DAMAGED):
            return [json.loads(line) for line in lines]

    def resume(self) -> list[Any]:
        """All whole lines, after cutting off a torn last one, to which the next would be glued."""
        rows = self.read()
        if self.path.exists():
            self.keep(len(rows))
        return rows

    def keep(self, count: int) -> None:
        """Cuts the file after its first `count` lines."""
        kept = self.read()[:count]
        write_atomically(self.path, b"".join(json.dumps(row).encode() + b"\n" for row in kept))

    def append(self, *values: Any) -> None:
        """Adds a line for each value, and syncs them."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.writelines(json.dumps(value).encode() + b"\n" for value in values)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(
                f"cannot write {self.path}: {error.strerror or error}. Make room and run the same "
                "command again; it continues from what was saved before."
            ) from error


def continued(path: Path | None, of: str) -> tuple[list[Any], Callable[..., None]]:
    """The rows that a killed program left in a file of results, and what adds rows to them.

    Args:
        path: the file, one JSON object a line; None is one that is never kept.
        of: what the results are of: each row says so, below its key `of`.

    Raises:
        RunError: the file holds rows of something else, or cannot be written.
    """
    if path is None:
        return [], lambda *rows: None
    lines = JsonLines(path)
    rows = lines.resume()
    if not all(isinstance(row, dict) and row.get("of") == of for row in rows):
        raise RunError(
            f"{path} holds the results of another network or of other images. Choose another "
            "--out, or delete it."
        )
    return rows, lines.append
