"""The UEM in torch and in JAX: one table for each structure, size and pass."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
import pytest
import torch

import ulfd_jax
from benchmarks.problems import FORWARD, UEMS, UEMS_BY_DEFAULT, UEMProblem
from benchmarks.suite import case
from ulfd.uem import UEMSpec
from ulfd_torch import UEM

Run = Callable[[], tuple[Any, ...]]
"""A call that gives σ or, with gradients, the mean of σ², its gradient by ẑ and by each weight."""


MAKERS: dict[str, Callable[[int], UEM]] = {"official": UEM.official, "pointwise": UEM}


@lru_cache(maxsize=1)
def prepared(problem: UEMProblem) -> tuple[UEM, torch.Tensor, tuple[np.ndarray, ...]]:
    """A UEM, features and the truth in float64."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    uem = MAKERS[problem.structure](problem.channels)
    features = torch.randn(problem.batch, problem.channels, problem.side, problem.side)
    exact = UEM(uem.spec).double()
    exact.load_state_dict(uem.state_dict())
    truth = by_torch(problem, exact, features.double())()
    return uem, features, tuple(part.detach().numpy() for part in truth)


def by_torch(
    problem: UEMProblem,
    uem: UEM,
    features: torch.Tensor,
    *,
    order: torch.memory_format = torch.contiguous_format,
    compiled: bool = False,
) -> Run:
    """torch's layers, with autograd unless the task is FORWARD."""
    uem = uem.to(memory_format=order)
    given = features.clone(memory_format=order).requires_grad_()
    function = torch.compile(uem) if compiled else uem

    def forward() -> tuple[Any, ...]:
        with torch.no_grad():
            return (function(given),)

    def backward() -> tuple[Any, ...]:
        loss = function(given).square().mean()
        return loss, *torch.autograd.grad(loss, (given, *uem.parameters()))

    return forward if problem.task == FORWARD else backward


def by_jax(problem: UEMProblem, uem: UEM, features: torch.Tensor, *, layout: str) -> Run:
    """`ulfd_jax.uem` under `jit`."""
    spec: UEMSpec = uem.spec
    weights = {name: jax.numpy.asarray(value.numpy()) for name, value in uem.state_dict().items()}
    given = features.numpy() if layout == "NCHW" else features.permute(0, 2, 3, 1).numpy()
    given = jax.numpy.asarray(given)
    apply = partial(ulfd_jax.uem.apply, spec=spec, layout=layout)

    def loss(weights: Any, given: Any) -> Any:
        return (apply(weights, given) ** 2).mean()

    def ordered(array: Any) -> Any:
        return array if layout == "NCHW" else array.transpose(0, 3, 1, 2)

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))

    def forward() -> tuple[Any, ...]:
        return (ordered(jax.block_until_ready(apply(weights, given))),)

    def backward() -> tuple[Any, ...]:
        value, (by_weights, by_features) = jax.block_until_ready(both(weights, given))
        return (
            value,
            ordered(by_features),
            *(by_weights[name] for name, _ in uem.named_parameters()),
        )

    return forward if problem.task == FORWARD else backward


CANDIDATES: dict[str, Callable[[UEMProblem, UEM, torch.Tensor], Run]] = {
    "torch eager": by_torch,
    "torch eager, channels last": partial(by_torch, order=torch.channels_last),
    "torch.compile": partial(by_torch, compiled=True),
    "torch.compile, channels last": partial(by_torch, order=torch.channels_last, compiled=True),
    "ulfd_jax, jit": partial(by_jax, layout="NCHW"),
    "ulfd_jax, jit, channels last": partial(by_jax, layout="NHWC"),
}


def check(results: tuple[Any, ...], truths: tuple[np.ndarray, ...]) -> None:
    """Raises AssertionError unless every result is as near to float64 as float32 comes.

    By the norm: a ReLU whose input rounds to the other side of 0 turns single gradients, all those
    of a place by up to a hundredth, and not σ.
    """
    bound = 1e-4 if len(truths) == 1 else 2e-3
    for found, truth in zip(results, truths, strict=True):
        if isinstance(found, torch.Tensor):
            found = found.detach().numpy()
        distance = np.linalg.norm(np.asarray(found, np.float64) - truth)
        if not distance <= bound * np.linalg.norm(truth):
            raise AssertionError(f"{distance / np.linalg.norm(truth):.1e} away, over {bound}")


@pytest.mark.parametrize(
    ("problem", "make"),
    [
        case(
            problem,
            make,
            group=str(problem),
            row=row,
            by_default=problem in UEMS_BY_DEFAULT and "channels last" not in row,
        )
        for problem in UEMS
        for row, make in CANDIDATES.items()
    ],
)
def test_uem(benchmark, problem, make):
    uem, features, truth = prepared(problem)
    run = make(problem, uem, features)
    check(run(), truth)
    benchmark(run)
