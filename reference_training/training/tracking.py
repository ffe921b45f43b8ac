"""What is logged besides metrics.jsonl: performance.jsonl, TensorBoard, Weights & Biases."""

import importlib
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from reference_training.config import ImageNetRun
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import JsonLines
from reference_training.runtime.ranks import World
from reference_training.training.protocols import Observer
from reference_training.training.record import plain

PERFORMANCE = "performance.jsonl"


def peak_memory(device: torch.device) -> int:
    """The most bytes that were in use at once: of GPU memory, or else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Performance:
    """Turns the clock's seconds into a row: pairs a second, seconds of each part, memory.

    Kept apart from metrics.jsonl, in which two runs agree to the bit.
    """

    def __init__(self, run: ImageNetRun, world: World) -> None:
        self.log = JsonLines(run.folder / PERFORMANCE)
        self.log.resume()
        self.batch_size = run.recipe.batch_size
        self.device = world.device
        self._before: int | None = None

    def __call__(self, row: dict[str, Any], seconds: dict[str, float]) -> dict[str, Any]:
        """Writes and returns the row; the first after a start has no throughput."""
        iteration = row["iteration"]
        performance: dict[str, Any] = {"iteration": iteration}
        if self._before is not None:
            pairs = (iteration - self._before) * self.batch_size
            performance["pairs_per_second"] = pairs / seconds["all"]
        self._before = iteration
        performance |= {f"seconds_{part}": value for part, value in seconds.items()}
        performance["peak_memory_bytes"] = peak_memory(self.device)
        self.log.append(performance)
        return performance


def _needs(module: str, option: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RunError(
            f"{option} needs a package that is not installed ({error}). Install it with:\n"
            "    pip install 'ulfd[tracking]'"
        ) from error


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "iteration"}


@contextmanager
def observers(run: ImageNetRun, world: World) -> Iterator[list[Observer]]:
    """What is told every line of the log, on rank 0; closed at the end.

    Raises:
        RunError: the package behind an option is not installed.
    """
    if not world.main:
        yield []
        return
    performance = Performance(run, world)
    writer = project = None
    if run.tensorboard:
        writer = _needs("torch.utils.tensorboard", "--tensorboard").SummaryWriter(str(run.folder))
    if run.wandb is not None:
        wandb = _needs("wandb", "--wandb")
        name = run.folder.name
        project = wandb.init(
            project=run.wandb, name=name, id=name, resume="allow", config=plain(run)
        )

    def observe(row: dict[str, Any], seconds: dict[str, float]) -> None:
        iteration = row["iteration"]
        values = _numbers(row) | _numbers(performance(row, seconds))
        if writer is not None:
            for key, value in values.items():
                writer.add_scalar(key, value, iteration)
        if project is not None:
            project.log(values, step=iteration)

    try:
        yield [observe]
    finally:
        if writer is not None:
            writer.close()
        if project is not None:
            project.finish()
