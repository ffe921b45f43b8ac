"""The training loop, resumable at any moment: one process or many, one batch or its shards.

A batch is cut into ranks × accumulation shards of equal size. Each goes through the network alone,
so batch normalisation sees one shard at a time; the gradient is the mean over all of them, and the
running averages follow the first shard, as in DataParallel. The result therefore depends on the
number of shards, and not on how they are shared out among processes.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Protocol

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
from reference_training.training.checkpoint import Checkpoint, load_tensors, tensors_of
from reference_training.training.schedule import OPTIMIZERS, Schedule
from ulfd.statistics import concern
from ulfd_torch.self_distillation import frozen_statistics

LOG_EVERY = 10


Observer = Callable[[dict[str, Any], dict[str, float]], None]
"""Gets each row of metrics.jsonl, and the seconds of each part of its iterations."""


class Source(Protocol):
    """Where the batches come from."""

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """This rank's part of the batches of the iterations first, ..., last − 1."""

    def describe(self, iteration: int) -> dict[str, Any]:
        """What the whole batch of an iteration consisted of, JSON-able."""

    def check(self) -> None:
        """Called on every rank at once, now and then; raises RunError to end the run."""


class Link(Protocol):
    """Whoever started the training: counts iterations, and may ask for an early, saved end."""

    @property
    def stop(self) -> threading.Event | Event:
        """Whether to stop."""

    def advance(self, iterations: int = 1) -> None:
        """Counts iterations just done."""

    def skip(self, iterations: int) -> None:
        """Counts iterations that an earlier start had done."""


def _reduced(name: str, values: Tensor) -> float:
    """One number from those of all shards: the extreme of extremes, else the mean."""
    if name.endswith("_min"):
        return values.min().item()
    return values.max().item() if name.endswith("_max") else values.mean().item()


@dataclass(eq=False)
class TrainingLoop:
    """Trains `step` to the end of the schedule, from the newest sound checkpoint in `folder`.

    Raises:
        RunError: the ranks see different checkpoints.
    """

    step: nn.Module
    """`Batch` to `StepResult`, on the world's device; changed in place."""
    source: Source
    schedule: Schedule
    _: KW_ONLY
    folder: Path
    """Receives the checkpoints, and metrics.jsonl with the losses."""
    checkpoint_every: int | None = None
    """Iterations between checkpoints, None: by time alone; there is always one at the end."""
    link: Link
    """Counts the iterations, and asks for an early, saved end."""
    numerics: Numerics = PLAIN
    accumulate: int = 1
    """Into how many shards each rank cuts its part of a batch, to save memory."""
    world: World = ALONE
    clock: Clock = field(default_factory=lambda: Clock(ALONE.device))
    """Adds up where the time goes."""
    observers: Sequence[Observer] = ()
    """Get every line of metrics.jsonl too, on rank 0."""
    kept: int = checkpoint.KEPT
    """How many checkpoints stay."""
    checkpoint_minutes: float = math.inf
    """Minutes after which the next one is due."""

    def __post_init__(self) -> None:
        self.optimizer = OPTIMIZERS[self.schedule.optimizer].make(
            self.step.parameters(),
            lr=self.schedule.learning_rate,
            weight_decay=self.schedule.weight_decay,
            fused=self.numerics.fused_optimizer or None,
        )
        self.writer = checkpoint.Writer(self.folder, self.kept)
        self._saved = time.monotonic()
        self.log = JsonLines(self.folder / "metrics.jsonl")
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

    def _rehearse(self, batch: Batch) -> None:
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

    def _iterate(self, batch: Batch) -> None:
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

    def _look(self) -> None:
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
                self._diverged(f"the loss ({loss:g}) {what}", done)

    def _diverged(self, what: str, done: int) -> None:
        path = self.folder / "diverged.json"
        facts = {"what": what, "iteration": done, "batch": self.source.describe(done - 1)}
        self.world.on_main(lambda: write_json(path, facts))
        raise RunError(
            f"{what} at iteration {done} of {self.folder}; lower "
            "--recipe.learning-rate or --lambda, or narrow --recipe.clamp. The last checkpoint "
            f"is from before and intact; {path.name} beside it names the batch."
        )

    def _report(self) -> None:
        """Writes a line about the newest iteration."""
        newest = self._losses[-1]
        self._look()
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
            for observe in self.observers:
                observe(row, seconds)

        self.world.on_main(tell)
        self.log_lines += 1

    def _save(self) -> None:
        """Begins to write a checkpoint.

        Raises:
            RunError: the loss or a weight is not finite, or the disk was full the time before.
        """
        self._look()
        # A finite loss can have a gradient that is not.
        sound = all(value.isfinite().all() for value in self.step.state_dict().values())
        if self.world.any(not sound):
            self._diverged("a weight is not finite", self.iteration)
        tensors = tensors_of(self.step, self.optimizer)
        state: dict[str, Any] = {
            "random": self.world.gather_objects(checkpoint.random_states()),
            "log_lines": self.log_lines,
            "ranks": self.world.size,
            "accumulate": self.accumulate,
        }
        point = Checkpoint(self.iteration, tensors, state)
        self.world.on_main(lambda: self.writer.begin(point))
        self._saved = time.monotonic()

    def _due(self) -> bool:
        """Whether it is time for a checkpoint."""
        if self.checkpoint_every and self.iteration % self.checkpoint_every == 0:
            return True
        late = time.monotonic() - self._saved >= 60 * self.checkpoint_minutes
        # The ranks ask each other where they talk anyway.
        return self.iteration % LOG_EVERY == 0 and self.world.any(late)

    def train(self) -> None:
        """Runs the iterations that are left.

        Raises:
            Interrupted: an end was asked for; a checkpoint of this moment is saved.
            RunError: the loss is not finite or exploded, or the disk is full.
        """
        try:
            self._train()
        finally:
            with contextlib.suppress(RunError):  # there was another error, if this is one
                self.writer.finish()

    def _train(self) -> None:
        start, end, stop = self.iteration, self.schedule.iterations, False
        self.link.skip(start)
        self.step.train()
        for batch in self.source.batches(start, end):
            if self.world.size > 1 and self.iteration == start:
                self._rehearse(batch)
            self._iterate(batch)
            last = self.iteration == end
            if last or self.iteration % LOG_EVERY == 0:
                self._report()
                self.source.check()
            self.link.advance()
            stop = self.world.any(self.link.stop.is_set())  # all ranks stop at the same iteration
            if stop or last or self._due():
                self._save()
            if stop:
                break
        self.world.on_main(self.writer.finish)
        if stop:
            raise Interrupted
        # Each rank has its own running averages of the last iteration; the checkpoint has rank 0's.
        self.world.broadcast(self.step.buffers())
