"""The training loop, resumable at any moment: one process or many, one batch or its shards.

A batch is cut into ranks × accumulation shards of equal size. Each goes through the network alone,
so batch normalisation sees one shard at a time; the gradient is the mean over all of them, and the
running averages follow the first shard, as in DataParallel. The result therefore depends on the
number of shards, and not on how they are shared out among processes.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from reference_training.config import PLAIN, Numerics
from reference_training.data.batch import Batch
from reference_training.methods.base import StepResult
from reference_training.runtime.clock import Clock
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import JsonLines, write_json
from reference_training.runtime.ranks import ALONE, World
from reference_training.runtime.stop import Interrupted
from reference_training.training import checkpoint
from reference_training.training.checkpoint import Checkpoint
from reference_training.training.protocols import Link, Observer, Source
from reference_training.training.schedule import Schedule
from reference_training.training.state import load_tensors, tensors_of
from ulfd_torch.self_distillation import frozen_statistics
from ulfd_torch.statistics import concern

LOG_EVERY = 10


def _reduced(name: str, values: Tensor) -> float:
    """One number from those of all shards: the extreme of extremes, else the mean."""
    if name.endswith("_min"):
        return values.min().item()
    return values.max().item() if name.endswith("_max") else values.mean().item()


class TrainingLoop:
    """A step, its optimiser and their place in the schedule; see `train`."""

    def __init__(
        self,
        step: nn.Module,
        schedule: Schedule,
        *,
        folder: Path,
        numerics: Numerics,
        accumulate: int,
        world: World,
        clock: Clock,
        kept: int,
    ) -> None:
        self.step = step
        self.schedule = schedule
        self.folder = folder
        self.numerics = numerics
        self.accumulate = accumulate
        self.world = world
        self.clock = clock
        self.kept = kept
        self.optimizer = torch.optim.Adam(
            step.parameters(),
            lr=schedule.learning_rate,
            weight_decay=schedule.weight_decay,
            fused=numerics.fused_optimizer or None,
        )
        self.log = JsonLines(folder / "metrics.jsonl")
        self.log_lines = 0
        self.iteration = self._restore()  # how many are done
        self.module = self._distributed()
        self._warned = False  # of the distillation loss, once is enough
        self._losses: list[Tensor] = []  # of the iterations since the last look at them
        self._results: list[StepResult] = []  # of the newest iteration, one for each shard

    def _distributed(self) -> nn.Module:
        if self.numerics.compile:
            self.step.compile()
        if self.world.size == 1:
            return self.step
        return DistributedDataParallel(self.step, gradient_as_bucket_view=True)

    def _restore(self) -> int:
        point, complaints = checkpoint.read_newest_sound(self.folder)
        found = None if point is None else point.iteration
        if len(set(self.world.gather_objects(found))) > 1:
            raise RunError(
                f"the ranks see different checkpoints in {self.folder}; it must be one folder "
                "that all machines share."
            )
        if self.world.main:
            again = f"iteration {found}" if found else "the beginning"
            for complaint in complaints:
                tqdm.write(f"{complaint}; continuing from {again}")
        if point is not None:
            self._load(point)
        if self.world.main:
            self.log.keep(self.log_lines)
        return 0 if point is None else point.iteration

    def _load(self, point: Checkpoint) -> None:
        load_tensors(point.tensors, self.step, self.optimizer)
        states = point.state["random"]
        if self.world.rank < len(states):  # there may have been fewer ranks
            checkpoint.restore_random_states(states[self.world.rank])
        self.log_lines = point.state["log_lines"]
        before = point.state["ranks"] * point.state["accumulate"]
        now = self.world.size * self.accumulate
        if before != now and self.world.main:
            tqdm.write(
                f"iteration {point.iteration} was reached in {before} shards, and goes on in "
                f"{now}: with the same pairs, but batch normalisation sees other groups of them"
            )

    def rehearse(self, batch: Batch) -> None:
        """Runs a batch through and forgets it.

        DistributedDataParallel rearranges its buckets after its first backward pass, and with them
        the order in which the ranks' gradients are added. After a rehearsal the first iteration of
        a continued run adds them like the same iteration of one that was never interrupted.
        """
        devices = [self.world.device] if self.world.device.type == "cuda" else []
        with torch.random.fork_rng(devices), frozen_statistics(self.step):
            self._forward(Batch(*(t.chunk(self.accumulate)[0] for t in batch))).loss.backward()
        self.optimizer.zero_grad(set_to_none=True)
        self.clock.read()

    def iterate(self, batch: Batch) -> None:
        """One iteration on this rank's part of the batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.iteration)
        self.optimizer.zero_grad(set_to_none=True)
        parts = (tensor.chunk(self.accumulate) for tensor in batch)
        shards = [Batch(*part) for part in zip(*parts, strict=True)]
        self._results = [
            self._backward(shard, index, last=index == len(shards) - 1)
            for index, shard in enumerate(shards)
        ]
        self._losses.append(torch.stack([result.loss.detach() for result in self._results]).mean())
        with self.clock.part("optimizer"):
            if self.numerics.clip_gradient is not None:
                nn.utils.clip_grad_norm_(self.step.parameters(), self.numerics.clip_gradient)
            self.optimizer.step()
        self.iteration += 1

    def _backward(self, shard: Batch, index: int, *, last: bool) -> StepResult:
        with ExitStack() as stack:
            if not last and isinstance(self.module, DistributedDataParallel):
                stack.enter_context(self.module.no_sync())
            if index > 0:  # on the other ranks too they are overwritten by those of rank 0
                stack.enter_context(frozen_statistics(self.step))
            result = self._forward(shard)
            with self.clock.part("backward"):
                (result.loss / self.accumulate).backward()
        return result

    def _forward(self, shard: Batch) -> StepResult:
        low = self.numerics.precision == "bfloat16"
        with (
            self.clock.part("forward"),
            torch.autocast(self.world.device.type, torch.bfloat16, enabled=low),
        ):
            return self.module(shard)

    def look(self, source: Source) -> None:
        """Looks at the losses since the last look.

        Raises:
            RunError: one of them is not finite, or exploded.
        """
        if not self._losses:
            return
        first = self.iteration - len(self._losses)
        losses = self.world.gather(torch.stack(self._losses)).mean(0).tolist()
        self._losses.clear()
        for done, loss in enumerate(losses, first + 1):
            if not abs(loss) <= self.numerics.max_loss:  # NaN is not either
                what = "exploded" if math.isfinite(loss) else "is not finite"
                self._diverged(f"the loss ({loss:g}) {what}", done, source)

    def _diverged(self, what: str, done: int, source: Source) -> None:
        path = self.folder / "diverged.json"
        facts = {"what": what, "iteration": done, "batch": source.describe(done - 1)}
        self.world.on_main(lambda: write_json(path, facts))
        raise RunError(
            f"{what} at iteration {done} of {self.folder}; lower "
            "--recipe.learning-rate or --lambda, or narrow --recipe.clamp. The last checkpoint "
            f"is from before and intact; {path.name} beside it names the batch."
        )

    def report(self, source: Source, observers: Sequence[Observer]) -> None:
        """Writes a line about the newest iteration."""
        newest = self._losses[-1]
        self.look(source)
        logs = [result.logs for result in self._results]
        names = ["loss", *logs[0]]
        rows = [torch.stack([value.float() for value in (newest, *log.values())]) for log in logs]
        values = self.world.gather(torch.stack(rows)).flatten(0, 1)
        row: dict[str, Any] = {
            "iteration": self.iteration,
            "learning_rate": self.schedule.rate(self.iteration - 1),
        }
        row |= {name: _reduced(name, values[:, at]) for at, name in enumerate(names)}
        seconds = self.clock.read()

        def tell() -> None:
            self.log.append(row)
            words = None if self._warned else concern(row)
            if words is not None:
                self._warned = True
                tqdm.write(f"{self.folder}, iteration {self.iteration}: {words}")
            for observe in observers:
                observe(row, seconds)

        self.world.on_main(tell)
        self.log_lines += 1

    def save(self, source: Source) -> None:
        """Writes a checkpoint.

        Raises:
            RunError: the loss or a weight is not finite, or the disk is full.
        """
        self.look(source)
        # A finite loss can have a gradient that is not.
        sound = all(value.isfinite().all() for value in self.step.state_dict().values())
        if self.world.any(not sound):
            self._diverged("a weight is not finite", self.iteration, source)
        tensors = tensors_of(self.step, self.optimizer)
        state: dict[str, Any] = {
            "random": self.world.gather_objects(checkpoint.random_states()),
            "log_lines": self.log_lines,
            "ranks": self.world.size,
            "accumulate": self.accumulate,
        }
        point = Checkpoint(self.iteration, tensors, state)
        self.world.on_main(lambda: checkpoint.write(self.folder, point, kept=self.kept))


def train(
    step: nn.Module,
    source: Source,
    schedule: Schedule,
    *,
    folder: Path,
    checkpoint_every: int,
    link: Link,
    numerics: Numerics = PLAIN,
    accumulate: int = 1,
    world: World = ALONE,
    clock: Clock | None = None,
    observers: Sequence[Observer] = (),
    kept: int = checkpoint.KEPT,
) -> None:
    """Trains `step` to the end of the schedule, from the newest sound checkpoint in `folder`.

    Args:
        step: `Batch` to `StepResult`, on the world's device; changed in place.
        source: the batches.
        schedule: length and learning rates.
        folder: receives the checkpoints, and metrics.jsonl with the losses.
        checkpoint_every: iterations between checkpoints; there is always one at the end.
        link: counts the iterations, and asks for an early, saved end.
        numerics: precision, speed and safety.
        accumulate: into how many shards each rank cuts its part of a batch, to save memory.
        world: the processes that share the work.
        clock: adds up where the time goes.
        observers: get every line of metrics.jsonl too, on rank 0.
        kept: how many checkpoints stay.
    Raises:
        Interrupted: an end was asked for; a checkpoint of this moment is saved.
        RunError: the loss is not finite or exploded, or the disk is full.
    """
    clock = clock or Clock(world.device)
    training = TrainingLoop(
        step,
        schedule,
        folder=folder,
        numerics=numerics,
        accumulate=accumulate,
        world=world,
        clock=clock,
        kept=kept,
    )
    link.skip(training.iteration)
    step.train()
    start = training.iteration
    for batch in source.batches(start, schedule.iterations):
        if world.size > 1 and training.iteration == start:
            training.rehearse(batch)
        training.iterate(batch)
        done = training.iteration
        if done % LOG_EVERY == 0 or done == schedule.iterations:
            training.report(source, observers)
            source.check()
        link.advance()
        stop = world.any(link.stop.is_set())  # all ranks stop at the same iteration
        if stop or done % checkpoint_every == 0 or done == schedule.iterations:
            training.save(source)
        if stop:
            raise Interrupted
    # Each rank has its own running averages of the last iteration; the checkpoint has rank 0's.
    world.broadcast(step.buffers())
