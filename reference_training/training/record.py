"""What a run writes down about itself, so that it can be understood and made again."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints

from tqdm import tqdm

from reference_training.config import NOT_COMPUTED, ImageNetRun, SmallRun
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json, write_json
from reference_training.runtime.ranks import launched
from ulfd.env import versions


def plain(value: Any) -> Any:
    """A dataclass as JSON has it: tuples as lists, paths as strings."""
    return json.loads(json.dumps(dataclasses.asdict(value), default=str))


def restored(kind: Any, value: dict[str, Any]) -> Any:
    """The dataclass of this kind of which `plain` made `value`."""
    hints = get_type_hints(kind)

    def field(key: str, found: Any) -> Any:
        if dataclasses.is_dataclass(hints[key]):
            return restored(hints[key], found)
        if isinstance(found, str) and Path in get_args(hints[key]):
            return Path(found)
        return tuple(found) if isinstance(found, list) else found

    return kind(**{key: field(key, found) for key, found in value.items()})


def _git() -> dict[str, Any] | None:
    """The commit of the code that runs, and whether it has uncommitted changes."""
    here = Path(__file__).parents[1]
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", str(here), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "."))
        )
    except (OSError, subprocess.SubprocessError):
        return None  # an installed package, or no git
    return {"commit": commit, "dirty": bool(status)}


def command(arguments: list[str] | None = None) -> str:
    """The command line that makes this run, and continues it."""
    given = sys.argv[1:] if arguments is None else arguments
    launcher = ["python"]
    if launched() > 1 and not any(one.startswith("--processes") for one in given):
        launcher = ["torchrun", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"]]
    return shlex.join([*launcher, "-m", "reference_training.run", *given])


def describe(run: SmallRun | ImageNetRun, dataset: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """The content of run.json."""
    return {
        "command": command(),
        "config": plain(run),
        "versions": versions(),
        "git": _git(),
        "dataset": dataset,
        **facts,
    }


def check_same_run(path: Path, description: dict[str, Any]) -> bool:
    """Whether the folder holds an earlier part of this very run (False: it holds nothing).

    Raises:
        RunError: it holds another run, which must not be mixed with this one.
    """
    if not path.exists():
        return False
    before = read_json(path)
    try:
        old = {**before["config"], "data": before["dataset"]}
    except (KeyError, TypeError) as error:
        raise RunError(
            f"{path} does not describe a run (no {error}); use another --out."
        ) from error
    new = {**description["config"], "data": description["dataset"]}
    changed = [text for key in new if key not in NOT_COMPUTED for text in _changes(key, old, new)]
    if changed:
        raise RunError(
            f"{path.parent} holds another run: {'; '.join(changed)}. Use another folder with "
            f"--out, or delete {path.parent} to start anew."
        )
    return True


def _changes(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What is no longer as it was below the last part of `name`, each by its whole name."""
    key = name.rpartition(".")[2]
    before, now = old.get(key), new.get(key)
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for inner in {**before, **now}:
            yield from _changes(f"{name}.{inner}", before, now)
    elif before != now:
        yield f"{name} was {before!r} and is now {now!r}"


@contextmanager
def kept(folder: Path, description: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """While active, run.json says what runs here; at the end also for how many seconds in all.

    Raises:
        RunError: the folder holds another run.
    """
    path, started, before = folder / "run.json", time.monotonic(), 0.0
    if check_same_run(path, description):
        before = read_json(path)["wall_seconds"]
        tqdm.write(f"resuming the run in {folder}")

    def write() -> None:
        description["wall_seconds"] = round(before + time.monotonic() - started, 1)
        write_json(path, description)

    write()
    try:
        yield description
    finally:
        write()
