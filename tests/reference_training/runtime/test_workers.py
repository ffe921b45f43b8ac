"""Training tasks begin when what they need is done, and a failure ends all of them."""

import multiprocessing
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from reference_training.runtime.errors import RunError
from reference_training.runtime.stop import Interrupted
from reference_training.runtime.workers import Pool, Shared, TrainingTask, bar, urgency


@pytest.fixture
def pool():
    context = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(2) as executor:
        yield Pool(
            executor,
            Shared(threading.Event(), context.Value("q", 0), context.Value("q", 0)),
            jobs=2,
        )


def test_no_task_waits_for_one_that_it_does_not_need(pool):
    done, later = [], threading.Event()

    def begin(seed):
        if seed == 1:  # ends only when seed 0 is further
            assert later.wait(20)
        done.append(("vanilla", seed))

    def go_on(seed):
        assert ("vanilla", seed) in done
        later.set()
        done.append(("ulfd", seed))

    tasks = {("vanilla", seed): TrainingTask((begin, seed), ()) for seed in (0, 1)}
    tasks |= {("ulfd", seed): TrainingTask((go_on, seed), [("vanilla", seed)]) for seed in (0, 1)}
    pool.train(tasks, 4)
    assert sorted(done) == sorted(tasks)
    assert done.index(("ulfd", 0)) < done.index(("vanilla", 1))


def test_a_failure_stops_the_others_and_is_the_one_that_is_told(pool):
    began = []

    def fail():
        raise RunError("a disk is full")

    def stopped():
        assert pool.link.stop.wait(20)
        raise Interrupted

    tasks = {
        ("a", 0): TrainingTask((stopped,), ()),
        ("b", 0): TrainingTask((fail,), ()),
        ("c", 0): TrainingTask((began.append, 1), [("b", 0)]),
    }
    with pytest.raises(RunError, match="a disk is full"):
        pool.train(tasks, 3)
    assert not began


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_quiet_in_a_file_for_ten_seconds(terminal, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert list(bar(3, "type", "made", "abc")) == ["a", "b", "c"]
    with bar(1000, "image", "listing") as progress:
        progress.write("a message", file=sys.stderr)
        progress.update(1000)
    told = capsys.readouterr().err
    assert "1000/1000" in told and "3/3" in told if terminal else told == "a message\n"
    slow = bar(9, "image", "listing")
    slow.start_t -= 11
    slow.last_print_t -= 11
    slow.update(4)
    assert "4/9" in capsys.readouterr().err


def test_the_dearest_chain_begins_first(pool):
    began = []
    tasks = {
        ("short", 0): TrainingTask((began.append, "short"), (), cost=1),
        ("long", 0): TrainingTask((began.append, "long"), (), cost=5),
        ("first", 0): TrainingTask((began.append, "first"), (), cost=2),
        ("second", 0): TrainingTask((began.append, "second"), [("first", 0)], cost=4),
    }
    assert urgency(tasks) == {
        ("short", 0): 1,
        ("long", 0): 5,
        ("first", 0): 6,
        ("second", 0): 4,
    }
    replace(pool, jobs=1).train(tasks, 1)
    assert began == ["first", "long", "second", "short"]
