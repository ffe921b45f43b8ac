"""What computes the loss: ulfd, what a user would pick instead, and the limits.

Every candidate that computes something is checked against the float64 closed form.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import torch
from torch import Tensor

import ulfd
import ulfd_torch
from benchmarks import measure
from benchmarks.problems import BOTH, FORWARD, GRADIENTS, LossProblem
from ulfd.gradients import closed_form
from ulfd.kernels.cpu import library
from ulfd.options import LossOptions, loss_options

COMPILED = "torch.compile"
LIMIT = "memory's limit"
LIKELIHOOD = {"prior_weight": 1.0, "weight": 0.5}
Given = tuple[Tensor, Tensor, Tensor]
Run = Callable[[], Any]


@dataclass(frozen=True)
class Candidate:
    """One way to compute a problem.

    Args:
        name: in the tables.
        make: a problem and its tensors to a call, which returns the value and, unless the task is
            FORWARD, the gradients by the student and by σ.
        serves: whether it can compute a problem.
        options: of the closed form that it computes; None computes nothing.
    """

    name: str
    make: Callable[[LossProblem, Given], Run]
    serves: Callable[[LossProblem], bool]
    options: dict[str, float] | None


def tensors(problem: LossProblem, *, seed: int = 0, device: str = "cpu") -> Given:
    """Student, teacher and σ, the student and σ with a gradient."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (problem.shape, problem.shape, problem.sigma_shape)
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    if problem.layout == "NHWC":
        made = [tensor.contiguous(memory_format=torch.channels_last) for tensor in made]
    dtype = getattr(torch, problem.dtype)
    student, teacher, sigma = (tensor.to(device, dtype) for tensor in made)
    return student.requires_grad_(), teacher, sigma.requires_grad_()


def formula(student: Any, teacher: Any, log_variance: Any, exp: Any = torch.exp) -> Any:
    """Eq. 9 as a user would write it, in any framework."""
    return (exp(-log_variance) * (teacher - student) ** 2 + 2 * log_variance).mean()


def gaussian_nll(student: Tensor, teacher: Tensor, log_variance: Tensor) -> Tensor:
    """torch's likelihood, ½·(d²/θ² + σ): k = 1 and half the weight, otherwise the same work."""
    return torch.nn.GaussianNLLLoss()(student, teacher, log_variance.exp())


def by_torch(loss: Callable[..., Tensor]) -> Callable[[LossProblem, Given], Run]:
    """A loss of torch with autograd's backward pass, or without for FORWARD."""

    def make(problem: LossProblem, given: Given) -> Run:
        student, teacher, sigma = given
        upstream = torch.tensor(problem.upstream, device=student.device)

        def forward() -> Any:
            with torch.no_grad():
                return (loss(student, teacher, sigma),)

        def backward() -> Any:
            value = loss(student, teacher, sigma)
            return value, *torch.autograd.grad(value, (student, sigma), upstream.to(value.dtype))

        return forward if problem.task == FORWARD else backward

    return make


def one_pass(problem: LossProblem, given: Given, **options: Any) -> Run:
    """`ulfd_torch.value_and_grad`."""
    if problem.upstream != 1:
        options["upstream"] = torch.tensor(problem.upstream, device=given[0].device)

    def run() -> Any:
        value, found = ulfd_torch.value_and_grad(*given, teacher_gradient=False, **options)
        return value, found.student, found.log_variance

    return run


def triton_one_pass(problem: LossProblem, given: Given) -> Run:
    """`ulfd_torch.value_and_grad` by the Triton kernels, without a graph."""
    student, teacher, sigma = (tensor.detach() for tensor in given)
    return one_pass(problem, (student, teacher, sigma), implementation="triton")


def by_jax(ours: bool) -> Callable[[LossProblem, Given], Run]:
    """JAX's value and gradients under `jit`, of ulfd_jax or of the formula."""

    def make(problem: LossProblem, given: Given) -> Run:
        import jax

        import ulfd_jax

        loss = ulfd_jax.ulfd_loss if ours else partial(formula, exp=jax.numpy.exp)
        function = jax.jit(jax.value_and_grad(loss, argnums=(0, 2)))
        arrays = [jax.numpy.asarray(tensor.detach().numpy()) for tensor in given]

        def run() -> Any:
            value, found = jax.block_until_ready(function(*arrays))
            return value, *found

        return run

    return make


def numpy_ulfd(problem: LossProblem, given: Given) -> Run:
    """`ulfd.value_and_grad`."""
    arrays = [tensor.detach().numpy() for tensor in given]

    def run() -> Any:
        value, found = ulfd.value_and_grad(*arrays, teacher_gradient=False)
        return value, found.student, found.log_variance

    return run


def numpy_plain(problem: LossProblem, given: Given) -> Run:
    """The formula and its gradients, as a user would write them in NumPy."""
    student, teacher, sigma = (tensor.detach().numpy() for tensor in given)
    axes = tuple(axis for axis, kept in enumerate(sigma.shape) if kept != problem.shape[axis])

    def run() -> Any:
        difference, precision = student - teacher, np.exp(-sigma)
        weighted = precision * difference
        squared = weighted * difference
        size = np.float32(difference.size)
        by_sigma = ((2 - squared) / size).sum(axis=axes, keepdims=True)
        return (squared + 2 * sigma).mean(), 2 * weighted / size, by_sigma

    return run


def by_numexpr(problem: LossProblem, given: Given) -> Run:
    """The formula and its gradients by numexpr's virtual machine."""
    import numexpr

    s, t, v = (tensor.detach().numpy() for tensor in given)
    names = {"s": s, "t": t, "v": v, "n": np.float32(s.size), "two": np.float32(2)}

    def run() -> Any:
        # Its own sum adds float32 one by one, 3 % wrong at 25 million elements.
        loss = numexpr.evaluate("exp(-v) * (s - t) ** 2 + two * v", names).mean()
        gradient = numexpr.evaluate("two * exp(-v) * (s - t) / n", names)
        return loss, gradient, numexpr.evaluate("(two - exp(-v) * (s - t) ** 2) / n", names)

    return run


def kernel_alone(problem: LossProblem, given: Given) -> Run:
    """The C++ kernel with its outputs allocated beforehand."""
    student, teacher, sigma = (tensor.detach() for tensor in given)
    outputs = [torch.empty_like(student), torch.empty_like(sigma)]
    loss = torch.empty(())
    loop = library.loop(problem.shape, problem.sigma_shape)
    pointers = [student, teacher, sigma, None, loss, outputs[0], None, outputs[1]]

    def run() -> Any:
        library.run(
            loop,
            pointers=[None if tensor is None else tensor.data_ptr() for tensor in pointers],
            dtypes=[problem.dtype] * 3,
            shape=problem.shape,
            options=LossOptions(),
            threads=torch.get_num_threads(),
        )
        return loss, *outputs

    return run


def streamed(problem: LossProblem, given: Given) -> Run:
    """A pass of the same reads and writes around the caches."""
    arrays = [tensor.detach().numpy() for tensor in given]
    # Of torch, whose memory begins on whole lines.
    targets = [torch.empty(problem.shape).numpy() for _ in range(2)]
    return partial(measure.streaming(torch.get_num_threads()), *arrays, *targets)


def composite(student: Tensor, teacher: Tensor, sigma: Tensor) -> Tensor:
    """The loss by torch's own operations."""
    return ulfd_torch.ulfd_loss(student, teacher, sigma, implementation="composite")


def fused(student: Tensor, teacher: Tensor, sigma: Tensor) -> Tensor:
    """The loss by the Triton kernels."""
    return ulfd_torch.ulfd_loss(student, teacher, sigma, implementation="triton")


class SaveAndScale(torch.autograd.Function):
    """Gradients stored by the forward pass and scaled by the backward pass, as some do."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, sigma: Tensor) -> Tensor:
        loss, gradients = ulfd_torch.value_and_grad(
            student, teacher, sigma, teacher_gradient=False, implementation="triton"
        )
        ctx.save_for_backward(gradients.student, gradients.log_variance)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, Tensor]:
        by_student, by_sigma = ctx.saved_tensors
        return by_student.mul_(upstream), None, by_sigma.mul_(upstream)


def _any(problem: LossProblem) -> bool:
    return True


def _asks(*tasks: str) -> Callable[[LossProblem], bool]:
    return lambda problem: problem.task in tasks


def _full(problem: LossProblem) -> bool:
    return problem.sigma == "full"


def _plain(problem: LossProblem) -> bool:
    """What the candidates without torch are given: contiguous float32."""
    form = (problem.task, problem.dtype, problem.layout)
    return form == (GRADIENTS, "float32", "NCHW") and problem.upstream == 1


def _plain_and_full(problem: LossProblem) -> bool:
    return _plain(problem) and _full(problem)


def _native(problem: LossProblem) -> bool:
    return _plain_and_full(problem) and bool(library.instruction_sets())


def _streams(problem: LossProblem) -> bool:
    return _plain_and_full(problem) and measure.streaming_compiler() is not None


ON_CPU = (
    Candidate("ulfd.ULFDLoss", by_torch(ulfd_torch.ULFDLoss()), _any, {}),
    Candidate("torch eager", by_torch(formula), _any, {}),
    Candidate(COMPILED, by_torch(torch.compile(formula)), _any, {}),
    Candidate("torch GaussianNLLLoss", by_torch(gaussian_nll), _full, LIKELIHOOD),
    Candidate("ulfd_torch.value_and_grad", one_pass, _asks(GRADIENTS), {}),
    Candidate("JAX jit", by_jax(ours=False), _plain, {}),
    Candidate("ulfd_jax", by_jax(ours=True), _plain, {}),
    Candidate("ulfd, NumPy", numpy_ulfd, _plain, {}),
    Candidate("NumPy", numpy_plain, _plain, {}),
    Candidate("numexpr", by_numexpr, _plain_and_full, {}),
    Candidate("ulfd, the kernel alone", kernel_alone, _native, {}),
    Candidate(LIMIT, streamed, _streams, None),
)
ON_GPU = (
    Candidate("eager", by_torch(composite), _any, {}),
    Candidate(COMPILED, by_torch(torch.compile(composite, fullgraph=True)), _any, {}),
    Candidate("fused", by_torch(fused), _asks(FORWARD), {}),
    Candidate("save and scale", by_torch(SaveAndScale.apply), _asks(BOTH), {}),
    Candidate("fused, recomputed", by_torch(fused), _asks(BOTH), {}),
    Candidate("fused, one pass", triton_one_pass, _asks(BOTH), {}),
)


def serving(candidates: Iterable[Candidate], problem: LossProblem) -> list[Candidate]:
    """Those that can compute the problem."""
    return [candidate for candidate in candidates if candidate.serves(problem)]


class Oracle:
    """The float64 closed form of a problem, computed once for all candidates.

    Args:
        problem: what is asked.
        given: its tensors.
    """

    def __init__(self, problem: LossProblem, given: Given) -> None:
        self.problem = problem
        self._arrays = [tensor.detach().cpu().double().numpy() for tensor in given]
        self._truths: dict[tuple, tuple[Any, ...]] = {}

    def _truth(self, options: dict[str, float]) -> tuple[Any, ...]:
        key = tuple(options.items())
        if key not in self._truths:
            exact = closed_form(
                *self._arrays, loss_options(**options), upstream=self.problem.upstream
            )
            value = ulfd.ulfd_loss(*self._arrays, implementation="composite", **options)
            self._truths[key] = (value, exact.student, exact.log_variance)
        return self._truths[key]

    def check(self, candidate: Candidate, results: Any) -> None:
        """Raises AssertionError unless value and gradients are right to the dtype's rounding."""
        if candidate.options is None:
            return
        truths = self._truth(candidate.options)
        truths = truths[:1] if self.problem.task == FORWARD else truths
        # bf16: eager torch rounds after every operation; and sums of what it rounded.
        relative, absolute = (1e-4, 2e-5) if self.problem.dtype == "float32" else (0.05, 0.05)
        for found, truth in zip(results, truths, strict=True):
            if isinstance(found, Tensor):
                found = found.detach().cpu().double().numpy()
            scale = np.abs(truth).max()
            np.testing.assert_allclose(
                np.asarray(found), truth, relative, absolute * scale, err_msg=candidate.name
            )
