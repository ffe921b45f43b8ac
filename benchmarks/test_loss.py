"""The loss beside what a user would pick instead; one table for each problem."""

from functools import lru_cache

import pytest
import torch

from benchmarks import device_clock
from benchmarks.losses import ON_CPU, ON_GPU, Candidate, Given, Oracle, serving, tensors
from benchmarks.problems import (
    CPU_LOSSES,
    CPU_LOSSES_BY_DEFAULT,
    GPU_LOSSES,
    GPU_LOSSES_BY_DEFAULT,
    LossProblem,
)
from benchmarks.suite import case


@lru_cache(maxsize=1)
def prepared(problem: LossProblem, device: str) -> tuple[Given, Oracle]:
    """Inputs and truth, kept while the candidates of a problem follow one another."""
    torch._dynamo.reset()
    given = tensors(problem, device=device)
    return given, Oracle(problem, given)


def checked(problem: LossProblem, candidate: Candidate, device: str):
    """The candidate's call, its results right."""
    given, oracle = prepared(problem, device)
    run = candidate.make(problem, given)
    oracle.check(candidate, run())
    return run


def cases(problems, candidates, by_default, **options):
    return [
        case(
            problem,
            candidate,
            group=str(problem),
            row=candidate.name,
            by_default=problem in by_default,
            **options,
        )
        for problem in problems
        for candidate in serving(candidates, problem)
    ]


@pytest.mark.parametrize(("problem", "candidate"), cases(CPU_LOSSES, ON_CPU, CPU_LOSSES_BY_DEFAULT))
def test_on_cpu(benchmark, problem, candidate):
    benchmark(checked(problem, candidate, "cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is False"
)
@pytest.mark.parametrize(
    ("problem", "candidate"),
    cases(GPU_LOSSES, ON_GPU, GPU_LOSSES_BY_DEFAULT, timer=device_clock.Moment),
)
def test_on_gpu(benchmark, problem, candidate):
    benchmark.pedantic(
        checked(problem, candidate, "cuda"),
        setup=device_clock.cold(),
        rounds=device_clock.ROUNDS,
        warmup_rounds=device_clock.WARMUP,
    )
