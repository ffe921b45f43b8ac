"""What a run writes down about itself, so that it can be understood and made again."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints

from tqdm import tqdm

from reference_training.config import NOT_COMPUTED, ImageNetRun, SmallRun
from reference_training.evaluation.results import differences
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json, write_json
from reference_training.runtime.image_files import some
from reference_training.runtime.ranks import OURS, launched
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
    if launched() > 1 and OURS not in os.environ:
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


BEFORE = {
    "optimizer": "adam",
    "decay": "steps",
    "warm_up": 0.0,
    "view": "crop",
    "gamma": None,
    "epsilon": 0.0,
}
"""What recipes did before they had these fields, and a record without them stands for."""
# Not simply the defaults: those may change. Version 0.2.0, which has none of these, and the one
# that got the last of them gave the same bits, in all trainings of the paper's tables and in all
# their sets. What is not here is not assumed: with deepaugment_stand_in other pairs came to
# DeepAugment's row on ImageNet, which nothing else in a record tells.


def check_same_run(path: Path, description: dict[str, Any]) -> bool:
    """Whether the folder holds an earlier part of this very run (False: it holds nothing).

    Raises:
        RunError: it holds another run, which must not be mixed with this one.
    """
    if not path.exists():
        return False
    before = read_json(path)
    try:
        recipe = BEFORE | before["config"]["recipe"]
        old = {**before["config"], "recipe": recipe, "data": before["dataset"]}
    except (KeyError, TypeError) as error:
        raise RunError(
            f"{path} does not describe a run (no {error}); use another --out."
        ) from error
    new = {**description["config"], "data": description["dataset"]}
    computed = [key for key in new if key not in NOT_COMPUTED]
    old, new = ({key: part[key] for key in computed if key in part} for part in (old, new))
    if changed := [*differences(old, new)]:
        unknown = any(" was absent " in text for text in changed)
        why = " (an earlier version began it, and what that did instead is not known)"
        raise RunError(
            f"{path.parent} holds another run: {some(changed, 3, '; ')}{why if unknown else ''}. "
            f"Use another folder with --out, or delete {path.parent} to start anew."
        )
    return True


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
