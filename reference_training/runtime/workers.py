"""Worker processes: one seed each while training, one evaluation set each afterwards.

Small networks use a second thread badly, and a sum's rounding depends on the number of threads.
So each worker computes with a fixed number of threads, 1 by default, and the cores are used by
working on several seeds or sets at once: faster, and the same numbers on every number of cores.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from reference_training.runtime.errors import RunError
from reference_training.runtime.ranks import is_main
from reference_training.runtime.stop import Interrupted, StopOnSignal, end_with_parent

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Shared:
    """What the workers and their parent see of each other."""

    stop: Event
    done: "Synchronized[int]"  # iterations, those of earlier starts included
    resumed: "Synchronized[int]"  # the iterations among them that earlier starts had done

    def advance(self, iterations: int = 1) -> None:
        """Counts iterations just done."""
        with self.done.get_lock():
            self.done.value += iterations

    def skip(self, iterations: int) -> None:
        """Counts iterations that an earlier start had done."""
        with self.resumed.get_lock():
            self.resumed.value += iterations
        self.advance(iterations)


_shared: Shared | None = None


def shared() -> Shared:
    """This worker's link to its parent."""
    assert _shared is not None  # set by _begin before the first task
    return _shared


def _begin(link: Shared, threads: int, environment: dict[str, str]) -> None:
    global _shared
    _shared = link
    os.environ.update(environment)  # the server's is from when it began
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches everyone; the parent decides
    torch.set_num_threads(threads)


class _InFile(tqdm):
    """A bar in a log file, which is not wiped and drawn again for a message beside it."""

    def clear(self, nolock: bool = False) -> None:
        pass

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> bool | None:
        return None if nolock else super().refresh(lock_args=lock_args)  # by `tqdm.write`


def bar(total: int, unit: str, description: str, over: Iterable | None = None) -> tqdm:
    """A progress bar on a terminal; in a log file a line every ten seconds, and so none of what is
    done sooner. Rank 0 only."""
    terminal = sys.stderr.isatty()
    return (tqdm if terminal else _InFile)(
        over,
        total=total,
        unit=unit,
        desc=description,
        mininterval=0.2 if terminal else 10.0,
        delay=0.0 if terminal else 10.0,
        dynamic_ncols=True,
        disable=not is_main(),
    )


Key = tuple[str, int]


class TrainingTask(NamedTuple):
    """A function with its arguments, and the keys of the tasks that must be done before."""

    call: tuple[Any, ...]
    needs: Sequence[Key]
    cost: float = 1.0
    """About how long it takes, in any unit."""


def urgency(tasks: Mapping[Key, TrainingTask]) -> dict[Key, float]:
    """What each task costs, and the dearest chain of those that wait for it.

    The most urgent first leaves the short ones for the end, when a core could be without work
    (Graham 1969).
    """
    found: dict[Key, float] = {}
    order = TopologicalSorter({key: task.needs for key, task in tasks.items()}).static_order()
    for key in reversed([*order]):
        waiting = (found[other] for other, task in tasks.items() if key in task.needs)
        found[key] = tasks[key].cost + max(waiting, default=0.0)
    return found


@dataclass(frozen=True)
class Pool:
    """Runs tasks in worker processes, under a progress bar and the parent's signals."""

    executor: Executor
    link: Shared
    jobs: int

    def train(self, tasks: Mapping[Key, TrainingTask], iterations: int) -> None:
        """Runs the training tasks, showing how far the workers' iterations have come.

        Args:
            tasks: each begins when those that it needs are done and a worker is free, the most
                urgent first.
            iterations: of all tasks together.
        Raises:
            RunError: a task failed; the others were stopped and have saved.
            Interrupted: a signal stopped all of them.
        """
        sorter = TopologicalSorter({key: task.needs for key, task in tasks.items()})
        sorter.prepare()
        first = urgency(tasks)
        ready: list[Key] = []
        running: dict[Future[None], Key] = {}
        errors: list[BaseException] = []
        with bar(iterations, "it", "training") as progress:
            while sorter.is_active() and (running or not errors):
                ready += sorter.get_ready()
                ready.sort(key=first.__getitem__, reverse=True)
                while ready and not errors and len(running) < self.jobs:
                    key = ready.pop(0)
                    running[self.executor.submit(*tasks[key].call)] = key
                finished, _ = wait(running, POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in finished:
                    key = running.pop(future)
                    if error := future.exception():
                        errors.append(error)
                        self.link.stop.set()
                    else:
                        sorter.done(key)
                progress.initial = self.link.resumed.value
                progress.update(self.link.done.value - progress.n)
        for error in sorted(errors, key=lambda error: isinstance(error, Interrupted)):
            raise error

    def results(
        self,
        tasks: list[Future[Any]],
        skipped: int,
        unit: str = "set",
        description: str = "evaluating",
    ) -> Iterator[Any]:
        """The results of the tasks in their order, as they come."""
        with bar(skipped + len(tasks), unit, description) as progress:
            progress.initial = progress.n = skipped
            for task in tasks:
                yield task.result()
                progress.update(1)


@contextmanager
def pool(jobs: int | None, threads: int, *, preload: str) -> Iterator[Pool]:
    """Starts the workers; on SIGINT or SIGTERM they save what they have, and the pool ends.

    Args:
        jobs: worker processes; None is as many as torch would use threads: one for each core.
        threads: torch's threads in each of them.
        preload: the module with the tasks; imported once, in the process that forks all workers.
    Raises:
        Interrupted: a signal came.
        RunError: a worker was killed from outside.
    """
    served = "forkserver" in multiprocessing.get_all_start_methods()  # not on Windows
    context = multiprocessing.get_context("forkserver" if served else "spawn")
    context.set_forkserver_preload([preload, "torch._dynamo"])  # which torch's optimisers import
    link = Shared(context.Event(), context.Value("q", 0), context.Value("q", 0))
    jobs = jobs or torch.get_num_threads()
    executor = ProcessPoolExecutor(
        jobs,
        mp_context=context,
        initializer=_begin,
        initargs=(link, threads, dict(os.environ)),
    )
    signals = StopOnSignal(link.stop)
    try:
        with signals:
            yield Pool(executor, link, jobs)
    except (BrokenProcessPool, EOFError) as error:  # EOFError: the fork server ended first
        if signals.came:
            raise Interrupted from error
        if isinstance(error, EOFError):
            raise
        raise RunError(
            "a worker process was killed, perhaps for want of memory. Run the same command again, "
            "it continues; fewer --jobs need less memory."
        ) from error
    finally:
        link.stop.set()
        executor.shutdown(cancel_futures=True)
