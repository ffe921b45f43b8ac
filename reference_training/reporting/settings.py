"""How a run was made, from its run.json: every setting, and the command."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from reference_training.reporting.blocks import Block, Code, Details, Heading, Paragraph, Table
from reference_training.reporting.measures import Json


def settings(run: Json) -> dict[str, str]:
    """Every setting of a run, by the name that its option has."""
    return dict(_flat(run.get("config") or {}))


def how_to_repeat(run: Json, level: int = 2) -> list[Block]:
    """The command, and every setting."""
    every = Table(("Setting", "Value"), tuple(settings(run).items()), "Settings", words=2)
    return [
        Heading("Make it again", level),
        Paragraph("At the same commit and versions; finished parts are not repeated:"),
        Code(str(run.get("command"))),
        *([Details("Every setting", (every,))] if every.rows else []),
    ]


def _flat(config: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
