"""The finished part of a long computation, kept beside its output until that is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reference_training.runtime.errors import RunError
from reference_training.runtime.files import JsonLines


class Ledger:
    """Rows of JSON that survive a killed program; without an output they are in memory alone.

    Args:
        out: the output; the rows are in a file named after it.
        description: JSON that tells this computation from others.

    Raises:
        RunError: the file holds rows of another computation, or cannot be written.
    """

    def __init__(self, out: Path | None, description: Any) -> None:
        self.rows: list[Any] = []
        self._lines: JsonLines | None = None
        if out is None:
            return
        self._lines = JsonLines(out.with_name(out.name + ".unfinished"))
        description = json.loads(json.dumps(description))
        kept = self._lines.resume()
        if not kept:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._lines.append(description)
        elif kept[0] != description:
            raise RunError(
                f"{self._lines.path} holds the unfinished part of another computation. Finish it "
                "with its own command, delete it, or choose another --out."
            )
        self.rows = kept[1:]

    def append(self, row: Any) -> None:
        """Keeps one more row."""
        self.rows.append(row)
        if self._lines is not None:
            self._lines.append(row)

    def close(self) -> None:
        """Forgets the rows on disk; to be called when the output is written."""
        if self._lines is not None:
            self._lines.path.unlink(missing_ok=True)
