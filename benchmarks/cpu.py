"""CPU benchmark of the loss: `python -m benchmarks.cpu --out FILE`.

Value and both gradients by what is installed here, and by what a user would write instead. The
candidates take turns in one process (A B A B ...), so that a drift of the machine's speed meets
all of them; the median of the rounds is reported with its quartiles, and the ratio to torch.compile
of the same formula. Each candidate is checked against the float64 closed form before it is timed.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import ulfd
from ulfd.env import versions
from ulfd.gradients import closed_form
from ulfd_torch import ulfd_loss

SHAPES = ((8, 64, 8, 8), (64, 512, 7, 7), (64, 2048, 7, 7))
ROUNDS = 15
REFERENCE = "torch.compile of the formula"
Gradients = tuple[Any, Any]


def formula(student: Tensor, teacher: Tensor, log_variance: Tensor) -> Tensor:
    """Eq. 9 as a user would write it."""
    return (torch.exp(-log_variance) * (teacher - student) ** 2 + 2 * log_variance).mean()


def gaussian_nll(student: Tensor, teacher: Tensor, log_variance: Tensor) -> Tensor:
    """torch's own likelihood, ½·(d²/θ² + σ): k = 1 and half the weight, else the same work."""
    return torch.nn.functional.gaussian_nll_loss(student, teacher, log_variance.exp())


def by_autograd(loss: Callable[..., Tensor]) -> Callable[..., Gradients]:
    """The gradients by student and σ of a torch loss."""

    def run(student: Tensor, teacher: Tensor, log_variance: Tensor) -> Gradients:
        return torch.autograd.grad(loss(student, teacher, log_variance), (student, log_variance))

    return run


def by_numpy(student: Tensor, teacher: Tensor, log_variance: Tensor) -> Gradients:
    """ulfd.value_and_grad on the same memory."""
    arrays = (tensor.detach().numpy() for tensor in (student, teacher, log_variance))
    gradients = ulfd.value_and_grad(*arrays)[1]
    return gradients.student, gradients.log_variance


CANDIDATES: dict[str, Callable[..., Gradients]] = {
    "ulfd_torch": by_autograd(ulfd_loss),
    "torch eager, the formula": by_autograd(formula),
    REFERENCE: by_autograd(torch.compile(formula)),
    "torch.nn.functional.gaussian_nll_loss": by_autograd(gaussian_nll),
    "ulfd (NumPy)": by_numpy,
}


def inputs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Float32 features and a full log-variance."""
    generator = torch.Generator().manual_seed(0)
    student, teacher, sigma = (torch.randn(shape, generator=generator) for _ in range(3))
    return student.requires_grad_(), teacher, sigma.requires_grad_()


def check(name: str, gradients: Gradients, tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    """Raises AssertionError unless the gradients are right to float32 rounding."""
    options = {"prior_weight": 1.0, "weight": 0.5} if "gaussian" in name else {}
    exact = closed_form(*(tensor.detach().numpy() for tensor in tensors), **options)
    for found, expected in zip(gradients, (exact.student, exact.log_variance), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-4, atol=1e-5 * scale)


def measure(shape: tuple[int, ...]) -> dict[str, Any]:
    """Medians and quartiles in milliseconds for one shape, and ratios to the reference."""
    tensors = inputs(shape)
    for name, run in CANDIDATES.items():
        check(name, run(*tensors), tensors)
    times: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    for _ in range(ROUNDS):
        for name, run in CANDIDATES.items():
            start = time.perf_counter()
            run(*tensors)
            times[name].append(1e3 * (time.perf_counter() - start))
    reference = times[REFERENCE]
    return {
        name: {
            "median_ms": statistics.median(values),
            "quartiles_ms": statistics.quantiles(values, n=4)[::2],
            "ratio_to_compile": statistics.median(
                mine / theirs for mine, theirs in zip(values, reference, strict=True)
            ),
        }
        for name, values in times.items()
    }


def main() -> None:
    """Prints a table for each shape and writes the raw numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where the raw JSON goes")
    out = parser.parse_args().out
    results: dict[str, Any] = {
        "machine": {
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(),
        },
        "versions": versions(),
        "value_and_gradients": {},
    }
    for shape in SHAPES:
        found = measure(shape)
        results["value_and_gradients"][str(shape)] = found
        print(f"\n{shape} float32, full σ, value and gradients: ms (median), ratio to compile")
        for name, row in sorted(found.items(), key=lambda item: item[1]["median_ms"]):
            print(f"  {name:40} {row['median_ms']:9.2f} {row['ratio_to_compile']:7.2f}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
