"""Checkpoints: tensors as safetensors, everything else as JSON, each written atomically.

A checkpoint is `<iteration>.safetensors` and `<iteration>.json`; the latter carries the former's
SHA-256 and is written last, so a checkpoint exists when its JSON does. Nothing is pickled.
"""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from reference_training.errors import RunError
from reference_training.files import read_json, write_atomically, write_json

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Where a training stands: its iteration, named tensors, and a JSON-able rest."""

    iteration: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def _paths(folder: Path, iteration: int) -> tuple[Path, Path]:
    stem = f"{iteration:08d}"
    return folder / f"{stem}.safetensors", folder / f"{stem}.json"


def iterations(folder: Path) -> list[int]:
    """The iterations of the complete checkpoints in `folder`, ascending."""
    return sorted(int(path.stem) for path in folder.glob("[0-9]*.json"))


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint and removes all but the newest `KEPT`.

    Raises:
        RunError: the disk is full or the folder not writable; earlier checkpoints stay.
    """
    tensors, description = _paths(folder, checkpoint.iteration)
    content = save({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()})
    write_atomically(tensors, content)
    digest = hashlib.sha256(content).hexdigest()
    write_json(description, {"sha256": digest, "state": checkpoint.state})
    for iteration in iterations(folder)[:-KEPT]:
        old_tensors, old_description = _paths(folder, iteration)
        old_description.unlink()
        old_tensors.unlink()


def read_latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint in `folder`, or None if there is none.

    Raises:
        RunError: it is damaged; the message says how to fall back.
    """
    found = iterations(folder)
    if not found:
        return None
    tensors, description = _paths(folder, found[-1])
    record = read_json(description)
    content = tensors.read_bytes() if tensors.exists() else b""
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        before = f"iteration {found[-2]}" if len(found) > 1 else "the beginning of this stage"
        raise RunError(
            f"the checkpoint {tensors} is damaged (its SHA-256 differs from the recorded one). "
            f"Delete {description.name} and {tensors.name} and run the same command again: it "
            f"continues from {before}."
        )
    return Checkpoint(found[-1], load(content), record["state"])


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's global generators, JSON-able."""
    kind, words, *rest = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [kind, np.asarray(words).tolist(), *rest],
        "torch": torch.get_rng_state().tolist(),
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Sets the global generators to what `random_states` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(states["numpy"]))
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
