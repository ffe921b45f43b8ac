"""The training loop of one stage (one method, one seed), resumable at any moment."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reference_training import checkpoint
from reference_training.checkpoint import Checkpoint
from reference_training.data.pairs import Pairs
from reference_training.errors import RunError
from reference_training.files import JsonLines
from reference_training.interrupt import Interrupted
from reference_training.workers import Shared

LOG_EVERY = 10


@dataclass(frozen=True)
class Schedule:
    """How long to train and with which learning rate, as a function of the iteration."""

    iterations: int
    learning_rate: float
    factor: Callable[[float], float]  # of the progress in [0, 1)
    weight_decay: float = 0.0

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        return self.learning_rate * self.factor(iteration / self.iterations)


def stepwise(milestones: tuple[float, ...]) -> Callable[[float], float]:
    """Divides by 10 after each of the milestones, fractions of the whole (paper, Sec. 4)."""
    return lambda progress: 0.1 ** sum(progress >= milestone for milestone in milestones)


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2017)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{index}.{name}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def _restore(point: Checkpoint, step: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    prefix = "step."
    step.load_state_dict(
        {
            name.removeprefix(prefix): value
            for name, value in point.tensors.items()
            if name.startswith(prefix)
        }
    )
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in point.tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    checkpoint.restore_random_states(point.state["random"])


def train(
    step: nn.Module,
    pairs: Pairs,
    schedule: Schedule,
    *,
    folder: Path,
    checkpoint_every: int,
    link: Shared,
) -> None:
    """Trains `step` to the end of the schedule, from the newest checkpoint in `folder` if any.

    Args:
        step: `Batch` to `StepResult`; changed in place.
        pairs: the batches.
        schedule: length and learning rates.
        folder: receives the checkpoints, and metrics.jsonl with the losses.
        checkpoint_every: iterations between checkpoints; there is always one at the end.
        link: counts the iterations, and asks for an early, saved end.
    Raises:
        Interrupted: an end was asked for; a checkpoint of this moment is saved.
        RunError: the loss is not finite, a checkpoint is damaged, or the disk is full.
    """
    optimizer = torch.optim.Adam(
        step.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    log = JsonLines(folder / "metrics.jsonl")
    point = checkpoint.read_latest(folder)
    start = 0
    if point is not None:
        _restore(point, step, optimizer)
        start = point.iteration
        link.skip(start)
        if start == schedule.iterations:
            return
    log_lines = 0 if point is None else point.state["log_lines"]
    log.keep(log_lines)
    step.train()

    def diverged(iteration: int, what: str) -> RunError:
        return RunError(
            f"{what} of {folder} is not finite at iteration {iteration}; lower "
            "--recipe.learning-rate or --lambda, or narrow --recipe.clamp. The last checkpoint "
            "is from before and intact."
        )

    def save(iteration: int) -> None:
        # The loss is looked at less often than this, and a finite one can have such a gradient.
        if not all(value.isfinite().all() for value in step.state_dict().values()):
            raise diverged(iteration, "a weight")
        tensors = {f"step.{name}": value for name, value in step.state_dict().items()}
        tensors |= _optimizer_tensors(optimizer)
        state: dict[str, Any] = {"random": checkpoint.random_states(), "log_lines": log_lines}
        checkpoint.write(folder, Checkpoint(iteration, tensors, state))

    for iteration, batch in enumerate(pairs.batches(start, schedule.iterations), start):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(iteration)
        result = step(batch)
        optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        optimizer.step()
        done = iteration + 1
        if done % LOG_EVERY == 0 or done == schedule.iterations:
            values = {name: value.item() for name, value in result.logs.items()}
            if not math.isfinite(result.loss.item()):
                raise diverged(done, "the loss")
            row = {"iteration": done, "learning_rate": schedule.rate(iteration)}
            log.append(row | {"loss": result.loss.item()} | values)
            log_lines += 1
        link.advance()
        stop = link.stop.is_set()
        if stop or done % checkpoint_every == 0 or done == schedule.iterations:
            save(done)
        if stop:
            raise Interrupted
