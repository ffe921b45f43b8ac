"""The processes of one run: those that `launch` or torchrun started, or this one alone."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from reference_training.runtime.errors import RunError
from reference_training.runtime.stop import end_with_parent

T = TypeVar("T")

LAUNCHER = "TORCHELASTIC_ERROR_FILE"
"""The variable in which a launcher names the file for a rank's error."""
OURS = "ULFD_LAUNCHER"
"""The variable that says that it is `launch`, which prints what one rank alone has to say."""
PATIENCE = 2.0  # seconds
LOST = "lost another process of this run"


@dataclass(frozen=True)
class World:
    """This process among its equals.

    Args:
        rank: this process's number, from 0; rank 0 writes every file.
        size: how many processes work on the run.
        device: where this process computes.
        hosts: the group for what need not wait for the devices; None is the default group.
    """

    rank: int
    size: int
    device: torch.device
    hosts: Any = None

    @property
    def main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def gather(self, values: Tensor) -> Tensor:
        """Every rank's tensor, stacked in the order of the ranks: (size, ...)."""
        if self.size == 1:
            return values[None]
        everyone = [torch.empty_like(values) for _ in range(self.size)]
        distributed.all_gather(everyone, values.contiguous())
        return torch.stack(everyone)

    def gather_objects(self, value: T) -> list[T]:
        """Every rank's value, in the order of the ranks."""
        if self.size == 1:
            return [value]
        everyone: list[Any] = [None] * self.size
        distributed.all_gather_object(everyone, value, group=self.hosts)
        return everyone

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites every rank's tensors, on its device, by those of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on some rank; no device is waited for."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag))
        distributed.all_reduce(flags, distributed.ReduceOp.MAX, group=self.hosts)
        return bool(flags)

    def on_main(self, function: Callable[[], T]) -> T:
        """What `function` returns on rank 0, on every rank.

        Raises:
            RunError: it raised one on rank 0; every rank raises it, so that none waits for ever.
        """
        outcome: T | RunError | None = None
        if self.main:
            try:
                outcome = function()
            except RunError as error:
                outcome = error
        outcome = self.gather_objects(outcome)[0]
        if isinstance(outcome, RunError):
            outcome.told = True
            raise outcome
        return outcome  # type: ignore[return-value]


ALONE = World(0, 1, torch.device("cpu"))


def launched() -> int:
    """How many processes were started together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is rank 0, before any process group exists."""
    return os.environ.get("RANK", "0") == "0"


def choose_device(name: str | None) -> torch.device:
    """The device of this process.

    Args:
        name: "cuda", where each local rank has its own GPU; "auto" or None for that if there is a
            GPU, else the CPU; or a device, as "cpu" and "cuda:1".
    Raises:
        RunError: no such device here, or more local ranks than GPUs.
    """
    if name in ("auto", None):
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        local, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= found:
            fewer = f"Start {found}, by --processes or torchrun, or use" if found else "Use"
            raise RunError(
                f"local rank {local} has no GPU of its own: this machine shows {found}. {fewer} "
                "--device cpu."
            )
        return torch.device("cuda", local)
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"--device {name} is not available here: {error}") from error


@contextmanager
def telling() -> Iterator[None]:
    """Prints an error that this rank alone raises; the command prints rank 0's.

    Under torchrun a rank waits before, for where rank 0 fails alike, this one is ended meanwhile.
    """
    try:
        yield
    except RunError as error:
        if is_main() or OURS in os.environ:
            raise
        if LAUNCHER in os.environ:
            time.sleep(PATIENCE)
        if not error.told:
            print(f"error on rank {os.environ['RANK']}: {error}", file=sys.stderr)
        raise


@contextmanager
def join(device: str) -> Iterator[World]:
    """This process's place in the run; leaves the group of processes at the end.

    Inside another `join` it is the same group: torchrun's store keeps the addresses of a group that
    was left, so no process can join twice.

    Args:
        device: see `choose_device`.
    Raises:
        RunError: another process of the run is gone.
    """
    place = choose_device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if launched() == 1:
        if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun started one process
            end_with_parent()
        yield World(0, 1, place)
        return
    if distributed.is_initialized():
        hosts = distributed.new_group(backend="gloo") if place.type == "cuda" else None
        yield World(distributed.get_rank(), distributed.get_world_size(), place, hosts)
        return
    end_with_parent()
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    hosts = distributed.new_group(backend="gloo") if place.type == "cuda" else None
    try:
        with telling():
            yield World(distributed.get_rank(), distributed.get_world_size(), place, hosts)
    except RuntimeError as error:
        if not isinstance(error, distributed.DistBackendError) and "gloo" not in str(error):
            raise
        raise RunError(
            f"{LOST} ({str(error).splitlines()[0]}). It was killed, or "
            "its machine failed; the last lines name it. Run the same command again: it "
            "continues from the last checkpoint."
        ) from error
    finally:
        distributed.destroy_process_group()
