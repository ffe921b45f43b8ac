"""The benchmarks measure what was published, and what is wrong is not timed."""

import numpy as np
import pytest
import torch

from benchmarks import losses, tables
from benchmarks.problems import (
    AUTOGRAD,
    CPU_LOSSES,
    CPU_LOSSES_BY_DEFAULT,
    FORWARD,
    GPU_LOSSES,
    GPU_LOSSES_BY_DEFAULT,
    GPU_SHAPE,
    PARITY_SHAPE,
    SIGMAS,
    LossProblem,
)

SMALL = LossProblem(shape=(4, 6, 3, 3), task=AUTOGRAD, upstream=0.37)
EAGER = next(candidate for candidate in losses.ON_CPU if candidate.name == "torch eager")
NATIVE = {"ulfd, the kernel alone", losses.LIMIT}
"""What there is only with a compiler, on some processors."""


def names(candidates, problem):
    return [candidate.name for candidate in losses.serving(candidates, problem)]


def test_the_published_problems_and_candidates_on_a_cpu():
    rows = tables.load("cpu.json")["rows"]
    assert tuple(tables.problem_of(row) for row in rows) == CPU_LOSSES
    for problem, row in zip(CPU_LOSSES, rows, strict=True):
        assert set(names(losses.ON_CPU, problem)) - NATIVE == set(row["candidates"]) - NATIVE


def test_the_published_problems_and_candidates_on_a_gpu():
    published = tables.load("gpu_h100.json")
    assert tuple(published["shape"]) == GPU_SHAPE
    keys = ("dtype", "sigma", "layout", "task", "one_pass_bytes")
    assert [(*(row[key] for key in keys), row["implementation"]) for row in published["rows"]] == [
        (*(getattr(problem, key) for key in keys), name)
        for problem in GPU_LOSSES
        for name in names(losses.ON_GPU, problem)
    ]


def test_parity_is_of_the_published_problems():
    published = tables.load("parity.json")
    assert tuple(published["shape"]) == PARITY_SHAPE
    assert tuple(published["sigmas"]) == SIGMAS


def test_the_default_cases_are_published_ones():
    assert set(CPU_LOSSES_BY_DEFAULT) < set(CPU_LOSSES)
    assert set(GPU_LOSSES_BY_DEFAULT) < set(GPU_LOSSES)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("task", [AUTOGRAD, FORWARD])
def test_a_right_result_passes(sigma, layout, task):
    problem = LossProblem(SMALL.shape, sigma=sigma, layout=layout, task=task, upstream=0.37)
    given = losses.tensors(problem)
    losses.Oracle(problem, given).check(EAGER, EAGER.make(problem, given)())


WRONG = {
    "no gradient": torch.zeros_like,
    "the wrong sign": torch.neg,
    "not scaled by the upstream gradient": lambda right: right / SMALL.upstream,
    "not a number": lambda right: right * np.nan,
}


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_wrong_result_does_not(dtype, place, wrong):
    problem = LossProblem(SMALL.shape, dtype, task=AUTOGRAD, upstream=SMALL.upstream)
    given = losses.tensors(problem)
    results = list(EAGER.make(problem, given)())
    results[place] = wrong(results[place])
    with pytest.raises(AssertionError, match="torch eager"):
        losses.Oracle(problem, given).check(EAGER, results)


def test_a_missing_gradient_is_noticed():
    given = losses.tensors(SMALL)
    with pytest.raises(ValueError, match="zip"):
        losses.Oracle(SMALL, given).check(EAGER, EAGER.make(SMALL, given)()[:2])
