"""The loss on this CPU against what a user would pick instead: `make bench`.

Every candidate is checked against the float64 closed form before it is timed; the candidates of a
case take turns in one process (`benchmarks.measure`). Writes raw JSON, from which
`python -m benchmarks.tables` makes the tables and the plot.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numexpr
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import ulfd
import ulfd_jax
import ulfd_torch
from benchmarks import measure
from ulfd.env import versions
from ulfd.gradients import closed_form
from ulfd.kernels.cpu import buffers, library
from ulfd.options import LossOptions, loss_options

GRADIENTS, FORWARD, AUTOGRAD = "value and gradients", "forward", "autograd"
COMPILED = "torch.compile"
KERNEL, LIMIT = "ulfd, the kernel alone", "memory's limit"
MAIN = (64, 2048, 7, 7)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """One problem and what is asked of it.

    Args:
        task: GRADIENTS, by any means; AUTOGRAD, a loss module and `backward`; FORWARD, no gradient.
        sigma: "full", "spatial" (B, 1, H, W), "sample" (B, 1, 1, 1) or "channel" (1, C, 1, 1).
        upstream: the gradient arriving at the loss.
    """

    shape: tuple[int, ...] = MAIN
    dtype: str = "float32"
    sigma: str = "full"
    layout: str = "NCHW"
    task: str = GRADIENTS
    upstream: float = 1.0

    @property
    def sigma_shape(self) -> tuple[int, ...]:
        """σ's shape."""
        kept = {"full": range(9), "spatial": (0, 2, 3), "sample": (0,), "channel": (1,)}[self.sigma]
        return tuple(size if axis in kept else 1 for axis, size in enumerate(self.shape))


CASES = (
    Case(),
    *(Case(sigma=sigma) for sigma in ("spatial", "sample", "channel")),
    *(Case(dtype="bfloat16", sigma=sigma) for sigma in ("full", "spatial", "sample", "channel")),
    *(Case(layout="NHWC", sigma=sigma) for sigma in ("full", "channel")),
    Case(task=AUTOGRAD),
    Case(task=AUTOGRAD, upstream=0.37),
    Case(task=FORWARD),
    *(Case(shape=shape) for shape in ((8, 64, 8, 8), (64, 512, 7, 7), (256, 2048, 7, 7))),
    Case(shape=(16, 197, 768)),
    Case(shape=(8, 64, 8, 8), task=AUTOGRAD),
    Case(shape=(64, 512, 7, 7), task=AUTOGRAD),
)


def formula(student: Any, teacher: Any, log_variance: Any, exp: Any = torch.exp) -> Any:
    """Eq. 9 as a user would write it, in any framework."""
    return (exp(-log_variance) * (teacher - student) ** 2 + 2 * log_variance).mean()


def gaussian_nll(student: Tensor, teacher: Tensor, log_variance: Tensor) -> Tensor:
    """torch's likelihood, ½·(d²/θ² + σ): k = 1 and half the weight, otherwise the same work."""
    return torch.nn.GaussianNLLLoss()(student, teacher, log_variance.exp())


def tensors(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Student, teacher and σ, the student and σ with a gradient."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(s, generator=generator) for s in (case.shape, case.shape, case.sigma_shape)]
    if case.layout == "NHWC":
        made = [tensor.contiguous(memory_format=torch.channels_last) for tensor in made]
    student, teacher, sigma = (tensor.to(DTYPES[case.dtype]) for tensor in made)
    return student.requires_grad_(), teacher, sigma.requires_grad_()


Candidates = Iterator[tuple[str, Callable[[], Any]]]


def torch_candidates(case: Case, given: tuple[Tensor, Tensor, Tensor]) -> Candidates:
    """Losses of torch, each with autograd's backward pass or without."""
    losses: dict[str, Callable[..., Tensor]] = {
        "ulfd.ULFDLoss": ulfd_torch.ULFDLoss(),
        "torch eager": formula,
        COMPILED: torch.compile(formula),
        "torch GaussianNLLLoss": gaussian_nll,
    }
    if case.sigma != "full":
        del losses["torch GaussianNLLLoss"]  # it takes no such variance
    student, teacher, sigma = given
    upstream = torch.tensor(case.upstream, dtype=torch.float32)

    def backward(loss: Callable[..., Tensor]) -> Any:
        value = loss(student, teacher, sigma)
        return value, *torch.autograd.grad(value, (student, sigma), upstream.to(value.dtype))

    def forward(loss: Callable[..., Tensor]) -> Any:
        with torch.no_grad():
            return (loss(student, teacher, sigma),)

    for name, loss in losses.items():
        yield name, partial(forward if case.task == FORWARD else backward, loss)
    if case.task == GRADIENTS:

        def one_pass() -> Any:
            value, found = ulfd_torch.value_and_grad(*given, teacher_gradient=False)
            return value, found.student, found.log_variance

        yield "ulfd_torch.value_and_grad", one_pass


def other_candidates(case: Case, given: tuple[Tensor, Tensor, Tensor]) -> Candidates:
    """JAX, NumPy and numexpr, contiguous float32."""
    arrays = [tensor.detach().numpy() for tensor in given]
    on_jax = [jax.numpy.asarray(array) for array in arrays]
    by = {"argnums": (0, 2)}
    naive = jax.jit(jax.value_and_grad(partial(formula, exp=jax.numpy.exp), **by))
    ours = jax.jit(jax.value_and_grad(ulfd_jax.ulfd_loss, **by))
    for name, function in {"JAX jit": naive, "ulfd_jax": ours}.items():

        def run(function: Any = function) -> Any:
            value, found = jax.block_until_ready(function(*on_jax))
            return value, *found

        yield name, run

    def numpy_ulfd() -> Any:
        value, found = ulfd.value_and_grad(*arrays, teacher_gradient=False)
        return value, found.student, found.log_variance

    def numpy_plain() -> Any:
        student, teacher, sigma = arrays
        difference, precision = student - teacher, np.exp(-sigma)
        weighted = precision * difference
        squared = weighted * difference
        size = np.float32(difference.size)
        axes = tuple(axis for axis, kept in enumerate(sigma.shape) if kept != case.shape[axis])
        by_sigma = ((2 - squared) / size).sum(axis=axes, keepdims=True)
        return (squared + 2 * sigma).mean(), 2 * weighted / size, by_sigma

    yield "ulfd, NumPy", numpy_ulfd
    yield "NumPy", numpy_plain
    if case.sigma == "full":

        def by_numexpr() -> Any:
            s, t, v = arrays
            n = np.float32(s.size)
            names = {"s": s, "t": t, "v": v, "n": n, "two": np.float32(2)}
            # Its own sum adds float32 one by one, 3 % wrong at 25 million elements.
            loss = numexpr.evaluate("exp(-v) * (s - t) ** 2 + two * v", names).mean()
            gradient = numexpr.evaluate("two * exp(-v) * (s - t) / n", names)
            return loss, gradient, numexpr.evaluate("(two - exp(-v) * (s - t) ** 2) / n", names)

        yield "numexpr", by_numexpr


def limits(case: Case, given: tuple[Tensor, Tensor, Tensor], threads: int) -> Candidates:
    """The kernel with its outputs allocated beforehand, and a copy of the same reads and writes."""
    student, teacher, sigma = (tensor.detach() for tensor in given)
    outputs = [torch.empty_like(student), torch.empty_like(sigma)]
    loss = torch.empty(())
    loop = library.loop(case.shape, case.sigma_shape)
    assert loop is not None
    pointers = [student, teacher, sigma, None, loss, outputs[0], None, outputs[1]]

    def kernel() -> Any:
        library.run(
            loop,
            pointers=[None if tensor is None else tensor.data_ptr() for tensor in pointers],
            dtypes=[case.dtype] * 3,
            shape=case.shape,
            options=LossOptions(),
            threads=threads,
        )
        return loss, *outputs

    yield KERNEL, kernel
    stream = measure.streaming(threads)
    if stream is not None:
        arrays = [tensor.numpy() for tensor in (student, teacher, sigma)]
        targets = [torch.empty_like(student).numpy(), torch.empty_like(student).numpy()]
        yield LIMIT, lambda: stream(*arrays, *targets)


def check(name: str, results: Any, case: Case, given: tuple[Tensor, Tensor, Tensor]) -> None:
    """Raises AssertionError unless value and gradients are right to the dtype's rounding."""
    options = {"prior_weight": 1.0, "weight": 0.5} if "Gaussian" in name else {}
    arrays = [tensor.detach().double().numpy() for tensor in given]
    exact = closed_form(*arrays, loss_options(**options), upstream=case.upstream)
    value = ulfd.ulfd_loss(*arrays, implementation="composite", **options)
    half = case.dtype != "float32"
    expected = (value, exact.student, exact.log_variance)[: len(results)]
    for found, truth in zip(results, expected, strict=True):
        numbers = (
            found.detach().double().numpy() if isinstance(found, Tensor) else np.asarray(found)
        )
        scale = np.abs(truth).max()
        # bf16: eager torch rounds after every operation; and sums of what it rounded.
        np.testing.assert_allclose(
            numbers, truth, rtol=0.05 if half else 1e-4, atol=scale * (0.05 if half else 2e-5),
            err_msg=name,
        )  # fmt: skip


def candidates(case: Case, given: tuple[Tensor, Tensor, Tensor], threads: int) -> Candidates:
    """All that can do the case."""
    yield from torch_candidates(case, given)
    plain = case.task == GRADIENTS and case.dtype == "float32" and case.layout == "NCHW"
    if plain:
        yield from other_candidates(case, given)
    if plain and case.sigma == "full":
        yield from limits(case, given, threads)


def measured(case: Case, threads: int) -> dict[str, Any]:
    """One case: every candidate checked, timed, and asked for its memory."""
    torch._dynamo.reset()
    given = tensors(case)
    found = dict(candidates(case, given, threads))
    for name, run in found.items():
        if name != LIMIT:
            check(name, run(), case, given)
    rows = measure.summary(measure.by_turns(found), COMPILED)
    for name, run in found.items():
        buffers.clear()  # what the pool has would hide what a call takes
        rows[name]["peak_bytes"] = measure.peak_memory(run)
    return {**asdict(case), "candidates": rows}


def earlier(path: Path, setting: dict[str, Any]) -> dict[Case, dict[str, Any]]:
    """The cases that the file has already, if measured on this machine with these versions."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if any(found[part] != setting[part] for part in setting):
        raise SystemExit(
            f"{path} was measured on another machine or with other versions; name a new file with "
            "--out, or leave --cases out to measure all anew."
        )
    names = Case.__dataclass_fields__
    return {
        Case(**{name: row[name] for name in names} | {"shape": tuple(row["shape"])}): row
        for row in found["rows"]
    }


def main() -> None:
    """Measures all cases or some, prints each as it comes, and keeps the file's others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the raw JSON goes")
    parser.add_argument("--cases", type=int, nargs="*", help="their numbers; all if not given")
    given = parser.parse_args()
    threads = torch.get_num_threads()
    setting = {
        "machine": {
            **measure.machine(threads),
            "instructions": next(iter(library.instruction_sets()), "none"),
        },
        "versions": {**versions(), "numexpr": numexpr.__version__},
    }
    rows: dict[Case, dict[str, Any]] = {}
    if given.cases is not None and given.out.exists():
        rows = earlier(given.out, setting)
    chosen = range(len(CASES)) if given.cases is None else given.cases
    for index in tqdm(chosen, unit="case"):
        case = CASES[index]
        rows[case] = measured(case, threads)
        tqdm.write(f"\n{case}")
        ranked = sorted(rows[case]["candidates"].items(), key=lambda row: row[1]["median_ms"])
        for name, row in ranked:
            tqdm.write(f"  {name:28} {row['median_ms']:9.3f} ms {row['speed']:7.2f}")
        results = {**setting, "rows": [rows[case] for case in CASES if case in rows]}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
