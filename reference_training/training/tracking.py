"""What is logged besides metrics.jsonl: performance.jsonl, TensorBoard, Weights & Biases."""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from reference_training.config import ImageNetRun
from reference_training.runtime.files import JsonLines
from reference_training.runtime.ranks import World
from reference_training.training.loop import Observer
from reference_training.training.record import plain
from ulfd.extras import require

PERFORMANCE = "performance.jsonl"


def peak_memory(device: torch.device) -> int:
    """The most bytes that were in use at once: of GPU memory, or else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def check_installed(run: ImageNetRun) -> None:
    """Raises ImportError, with the pip line, if the package behind an option is not there."""
    for module, given in (("tensorboard", run.tensorboard), ("wandb", run.wandb is not None)):
        if given:
            require(module, extra="tracking", by=f"--{module}")


@contextmanager
def observers(run: ImageNetRun, world: World) -> Iterator[list[Observer]]:
    """What is told every line of the log, on rank 0; closed at the end.

    performance.jsonl gets pairs a second (from the second line after a start on), the seconds of
    each part, and memory. It is kept apart from metrics.jsonl, in which two runs agree to the bit.
    """
    if not world.main:
        yield []
        return
    log = JsonLines(run.folder / PERFORMANCE)
    log.resume()
    before: list[int] = []  # the iterations of the earlier lines
    trackers: list[Callable[[dict[str, Any], int], object]] = []
    with ExitStack() as stack:
        if run.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            writer: Any = stack.enter_context(SummaryWriter(str(run.folder)))
            trackers.append(
                lambda values, step: [writer.add_scalar(*item, step) for item in values.items()]
            )
        if run.wandb is not None:
            import wandb

            name = run.folder.name
            project = wandb.init(
                project=run.wandb, name=name, id=name, resume="allow", config=plain(run)
            )
            stack.callback(project.finish)
            trackers.append(lambda values, step: project.log(values, step=step))

        def observe(row: dict[str, Any], seconds: dict[str, float]) -> None:
            iteration = row["iteration"]
            values: dict[str, Any] = {}
            if before:
                pairs = (iteration - before[-1]) * run.recipe.batch_size
                values["pairs_per_second"] = pairs / seconds["all"]
            before.append(iteration)
            values |= {f"seconds_{part}": value for part, value in seconds.items()}
            values["peak_memory_bytes"] = peak_memory(world.device)
            log.append({"iteration": iteration} | values)
            for track in trackers:
                track({key: row[key] for key in row if key != "iteration"} | values, iteration)

        yield [observe]
