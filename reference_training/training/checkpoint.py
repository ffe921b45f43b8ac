"""Checkpoints: tensors as safetensors, everything else as JSON, each written atomically.

A checkpoint is `<iteration>.safetensors` and `<iteration>.json`; the latter carries the former's
SHA-256 and is written last, so a checkpoint exists when its JSON does. Nothing is pickled.
"""

import hashlib
import json
import random
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn

from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json, write_atomically, write_json

STEP, OPTIMIZER = "step.", "optimizer."
KEPT = 2
DTYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""As safetensors names them."""


class Damaged(Exception):
    """A checkpoint is not what was written; the message names the file."""


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


def _remove(folder: Path, iteration: int) -> None:
    tensors, description = _paths(folder, iteration)
    description.unlink()
    tensors.unlink(missing_ok=True)


def packed(tensors: Mapping[str, Tensor], into: Tensor | None = None) -> Tensor:
    """The content of a safetensors file, uint8 (bytes,) in host memory.

    Its own `save` holds the interpreter for the seconds that a large file takes, and the training
    with it; this content is hashed and written without.

    Args:
        tensors: by name, on any device, in any memory order.
        into: an earlier result of tensors of these sizes, to be overwritten.
    """
    header: dict[str, dict[str, Any]] = {}
    end = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        value, start = tensors[name], end
        end += value.numel() * value.element_size()
        shape, dtype = list(value.shape), DTYPES[value.dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    first = 8 + len(text)
    if into is None or len(into) != first + end:
        pinned = any(value.device.type == "cuda" for value in tensors.values())
        into = torch.empty(first + end, dtype=torch.uint8, pin_memory=pinned)
    into[:first] = torch.tensor([*len(text).to_bytes(8, "little"), *text], dtype=torch.uint8)
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        place = into[first + start : first + stop].view(tensors[name].dtype)
        place.view(tensors[name].shape).copy_(tensors[name], non_blocking=True)
    if torch.cuda.is_initialized():
        torch.cuda.current_stream().synchronize()
    return into


def _write(folder: Path, at: int, content: Tensor, state: dict[str, Any], kept: int) -> None:
    """Writes a checkpoint and removes all but the newest `kept`, and those of a later iteration.

    A later one was damaged, or else the training would not have come here again.

    Raises:
        RunError: the disk is full or the folder not writable; earlier checkpoints stay.
    """
    tensors, description = _paths(folder, at)
    view = content.numpy().data
    write_atomically(tensors, view)
    write_json(description, {"sha256": hashlib.sha256(view).hexdigest(), "state": state})
    present = iterations(folder)
    newest = [iteration for iteration in present if iteration <= at][-kept:]
    for iteration in present:
        if iteration not in newest:
            _remove(folder, iteration)


class Writer:
    """Writes the checkpoints of a folder beside the training: one at a time, in a thread.

    Args:
        folder: of the checkpoints.
        kept: how many stay.
    """

    def __init__(self, folder: Path, kept: int = KEPT) -> None:
        self.folder, self.kept = folder, kept
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._content: Tensor | None = None  # kept, for pinned memory takes long to get

    def begin(self, checkpoint: Checkpoint) -> None:
        """Copies the tensors, which may change from then on, and begins to write.

        Raises:
            RunError: the checkpoint before could not be written.
        """
        self.finish()
        self._content = packed(checkpoint.tensors, self._content)
        self._writing = self._thread.submit(
            _write, self.folder, checkpoint.iteration, self._content, checkpoint.state, self.kept
        )

    def finish(self) -> None:
        """Waits until the newest checkpoint is written.

        Raises:
            RunError: it could not be.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def read(folder: Path, iteration: int) -> Checkpoint:
    """The checkpoint of that iteration.

    Raises:
        Damaged: it is not what was written.
    """
    tensors, description = _paths(folder, iteration)
    try:
        record = read_json(description)
        digest, state = record["sha256"], record["state"]
        content = tensors.read_bytes()
    except (RunError, KeyError, TypeError) as error:
        raise Damaged(f"the checkpoint {description} is damaged (no JSON of ours)") from error
    except FileNotFoundError as error:
        raise Damaged(f"the checkpoint {tensors} is gone") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise Damaged(
            f"the checkpoint {tensors} is damaged (its SHA-256 differs from the recorded one)"
        )
    return Checkpoint(iteration, load(content), state)


def read_newest_sound(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is not damaged (None: there is none), and what is wrong with
    those that are newer."""
    complaints: list[str] = []
    for iteration in reversed(iterations(folder)):
        try:
            return read(folder, iteration), complaints
        except Damaged as damage:
            complaints.append(str(damage))
    return None, complaints


def read_latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint in `folder`, or None if there is none.

    Raises:
        RunError: it is damaged.
    """
    point, complaints = read_newest_sound(folder)
    if complaints:
        raise RunError(f"{complaints[0]}. Run the same command again: it trains this part anew.")
    return point


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's global generators, JSON-able."""
    kind, words, *rest = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [kind, np.asarray(words).tolist(), *rest],
        "torch": torch.get_rng_state().tolist(),
        "cuda": torch.cuda.get_rng_state().tolist() if torch.cuda.is_initialized() else None,
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Sets the global generators to what `random_states` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(states["numpy"]))
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
    if states["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(torch.tensor(states["cuda"], dtype=torch.uint8))


def strip_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def tensors_of(step: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, buffers, and the optimiser's moments."""
    tensors = {f"{STEP}{name}": value for name, value in step.state_dict().items()}
    return tensors | {
        f"{OPTIMIZER}{index}.{name}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def load_tensors(
    tensors: Mapping[str, Tensor], step: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Puts back what `tensors_of` returned.

    Args:
        tensors: by name.
        step: changed in place.
        optimizer: of all weights of the step in one group; changed in place.
    """
    step.load_state_dict(strip_prefix(STEP, tensors))
    (group,) = optimizer.param_groups
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in strip_prefix(OPTIMIZER, tensors).items():
        index, key = name.split(".")
        weight = group["params"][int(index)]
        if value.shape == weight.shape:  # the fused kernel wants all in one memory order
            value = torch.empty_like(weight).copy_(value)
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
