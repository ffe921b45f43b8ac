"""The torch operators, run by Triton's interpreter: autograd, compile, transforms.

Not collected by itself: `test_fused.py` runs it for each kernel, for Triton's in its interpreter.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import ulfd_torch
from tests.ulfd.kernels.cases import DTYPES, KERNEL, NHWC, Case, expected, inputs
from ulfd.kernels import triton_configs
from ulfd.options import loss_options
from ulfd_torch import operators

NAMED = {"weight": 0.1, "beta": 0.5, "clamp": (-2.0, 2.0)}
OPTIONS = operators.flat(KERNEL, loss_options(**NAMED))
CASE = Case((2, 6, 4, 4), (2, 1, 4, 4), options=NAMED)
SHAPES = [(2, 6, 4, 4), (2, 1, 4, 4), (1, 6, 1, 1), (), None]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small = triton_configs.Config(256, 1, triton_configs.Columns(256, 1, width=64, programs=6))
    monkeypatch.setattr(triton_configs, "DEFAULT", {4: small, 2: small})


class Count(TorchDispatchMode):
    """Which of our operators run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "ulfd":
            self.names.append(func._opname)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def count() -> Iterator[Count]:
    with Count() as mode:
        yield mode


def fused(*tensors: Any, **options: Any) -> torch.Tensor:
    return ulfd_torch.ulfd_loss(*tensors, implementation=KERNEL, **{**NAMED, **options})


def leaves(case: Case = CASE, seed: int = 0) -> list[Any]:
    return [t if t is None else t.requires_grad_() for t in inputs(case, seed=seed)]


# ------------------------------------------------------------------------------------ opcheck


@pytest.mark.parametrize("sigma", SHAPES)
@pytest.mark.parametrize("order", [None, NHWC])
def test_opcheck(sigma: Any, order: Any) -> None:
    tensors = leaves(Case(CASE.shape, sigma, order))
    upstream = torch.tensor(0.5, requires_grad=True)
    needs = [True, True, sigma is not None]
    torch.library.opcheck(operators.fused_loss, (*tensors, *OPTIONS))
    torch.library.opcheck(operators.fused_gradients, (*tensors, upstream, *OPTIONS, needs))
    torch.library.opcheck(
        operators.fused_value_and_gradients, (*tensors, upstream, *OPTIONS, needs)
    )


# ----------------------------------------------------------- the rule: recompute, or one pass


def test_autograd_recomputes(count: Count) -> None:
    fused(*leaves()).backward()
    assert count.names == ["fused_loss", "fused_gradients"]


def test_value_and_grad_is_one_pass(count: Count) -> None:
    ulfd_torch.value_and_grad(*inputs(CASE), implementation=KERNEL)
    assert count.names == ["fused_value_and_gradients"]


def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, ...]]:
    """The gradients that every launch from now on writes: by student, by teacher, by σ."""
    seen: list[tuple[bool, ...]] = []
    compute = operators.KERNELS[KERNEL]

    def record(*arguments: Any, needs: Any, **options: Any) -> Any:
        results = compute(*arguments, needs=needs, **options)
        seen.append(tuple(gradient.numel() > 0 for gradient in results[1:]))
        return results

    monkeypatch.setattr(operators, "KERNELS", {KERNEL: record})
    return seen


def test_the_teachers_gradient_is_written_only_when_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = launched(monkeypatch)
    student, teacher, sigma = leaves()
    fused(student, teacher.detach(), sigma).backward()
    assert seen[-1] == (True, False, True)
    fused(student, teacher, sigma.detach()).backward()
    assert seen[-1] == (True, True, False)
    ulfd_torch.value_and_grad(student, teacher, teacher_gradient=False, implementation=KERNEL)
    assert seen[-1] == (True, False, False)


# ------------------------------------------------------------------------------------ autograd


def test_two_backward_passes_and_accumulation() -> None:
    tensors = leaves()
    loss = fused(*tensors)
    loss.backward(torch.tensor(0.37), retain_graph=True)
    once = [tensor.grad.clone() for tensor in tensors]
    reference = expected(*tensors, upstream=0.37, **NAMED)
    assert not reference.errors((loss, *once))
    loss.backward(torch.tensor(0.37))
    # Natively the upstream gradient is multiplied last in the first pass, and first in the second:
    # three roundings each, and one of the sum.
    rtol = 2.0**-21 if KERNEL == "native" else 0
    for tensor, first in zip(tensors, once, strict=True):
        torch.testing.assert_close(tensor.grad, 2 * first, rtol=rtol, atol=0)


def test_inputs_changed_in_place_are_noticed() -> None:
    student, teacher, sigma = leaves()
    moved = student * 1
    loss = fused(moved, teacher, sigma)
    with torch.no_grad():
        moved.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradient_penalty_is_exact() -> None:
    """Σ (∂L/∂ẑ)² differentiated again, by every input, against float64 autograd."""
    for sigma in SHAPES:
        tensors = leaves(Case(CASE.shape, sigma))
        doubles = [t if t is None else t.detach().double().requires_grad_() for t in tensors]
        results = []
        for given, implementation in ((tensors, KERNEL), (doubles, "composite")):
            present = [t for t in given if t is not None]
            loss = ulfd_torch.ulfd_loss(
                *given, implementation=implementation, reduction="sum", **NAMED
            )
            first = torch.autograd.grad(3 * loss, present, create_graph=True)
            penalty = sum((gradient**2).sum() for gradient in first)
            results.append(torch.autograd.grad(penalty, present))
        for ours, truth in zip(*results, strict=True):
            torch.testing.assert_close(ours.double(), truth, rtol=1e-4, atol=1e-4)
            assert truth.abs().max() > 0.01


def test_the_penalty_of_one_number() -> None:
    """L = d², (∂L/∂ẑ)² = 4d², whose derivative at d = 7 is 56; a constant gradient gives 0."""
    student = torch.tensor([7.0], requires_grad=True)
    loss = ulfd_torch.ulfd_loss(student, torch.zeros(1), implementation=KERNEL)
    (first,) = torch.autograd.grad(loss, student, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), student)
    assert second.item() == 56.0


def test_value_and_grad_is_differentiable() -> None:
    student, teacher, sigma = leaves()
    loss, gradients = ulfd_torch.value_and_grad(
        student, teacher, sigma, implementation=KERNEL, **NAMED
    )
    plain_loss, plain = ulfd_torch.value_and_grad(
        student, teacher, sigma, implementation="composite", **NAMED
    )
    ours = torch.autograd.grad(loss + gradients.student.square().sum(), (student, sigma))
    theirs = torch.autograd.grad(plain_loss + plain.student.square().sum(), (student, sigma))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_grad_scaler_with_float16() -> None:
    parameter = torch.ones((), requires_grad=True)
    student, teacher, sigma = inputs(Case((4, 64), (4, 64), None, DTYPES[2]))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    loss = fused(student * parameter.half(), teacher, sigma, weight=1e-7)
    scaler.scale(loss).backward()
    exact = expected(student, teacher, sigma, **{**NAMED, "weight": 1e-7}).values[1]
    assert exact is not None
    assert np.abs(exact).max() < 2.0**-24  # what float16 could not hold unscaled
    truth = (exact * student.double().numpy()).sum() * 2.0**16
    assert parameter.grad.item() == pytest.approx(truth, rel=0.01)


def test_autocast_and_checkpointing() -> None:
    student, teacher, sigma = leaves()
    plain = fused(student, teacher, sigma)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fused(student, teacher, sigma), plain)
    again = checkpoint(fused, student, teacher, sigma, use_reentrant=False)
    assert torch.equal(again, plain)
    gradients = torch.autograd.grad(again, (student, sigma))
    for a, b in zip(gradients, torch.autograd.grad(plain, (student, sigma)), strict=True):
        assert torch.equal(a, b)


# ---------------------------------------------------------------------- compilers, transforms


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_fullgraph(backend: str, dynamic: bool) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(fused, fullgraph=True, backend=backend, dynamic=dynamic)
    for batch in (2, 3):
        case = Case((batch, 6, 4, 4), (batch, 1, 4, 4), options=NAMED)
        tensors = leaves(case, seed=batch)
        loss = compiled(*tensors)
        loss.backward(torch.tensor(0.37))
        reference = expected(*tensors, upstream=0.37, **NAMED)
        assert not reference.errors((loss, *(tensor.grad for tensor in tensors)))


def test_compiled_code_calls_the_same_operators() -> None:
    torch._dynamo.reset()
    names: list[str] = []

    def backend(graph: Any, example: Any) -> Any:
        names.extend(str(node.target) for node in graph.graph.nodes if "ulfd" in str(node.target))
        return graph.forward

    from torch._dynamo.backends.common import aot_autograd

    compiled = torch.compile(fused, fullgraph=True, backend=aot_autograd(fw_compiler=backend))
    compiled(*leaves()).backward()
    assert names == ["ulfd.fused_loss.default", "ulfd.fused_gradients.default"]


def test_compiled_module_with_automatic_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    module = ulfd_torch.ULFDLoss(**NAMED)
    tensors = inputs(CASE)
    launches = launched(monkeypatch)
    loss = torch.compile(module, fullgraph=True, backend="aot_eager")(*tensors)
    assert len(launches) == 1
    assert torch.equal(loss, fused(*tensors))


def test_func_grad_and_vmap() -> None:
    student, teacher, sigma = inputs(Case((3, 6, 4), (3, 1, 4), options=NAMED))

    def plain(*tensors: torch.Tensor) -> torch.Tensor:
        return ulfd_torch.ulfd_loss(*tensors, implementation="composite", **NAMED)

    for transform in (
        lambda f: torch.func.grad(f, argnums=(0, 1, 2)),
        lambda f: torch.vmap(f, in_dims=(0, 0, 0)),
        lambda f: lambda s, t, g: torch.vmap(f, in_dims=(0, None, None))(s, t[0], g[0]),
        lambda f: torch.vmap(torch.func.grad(f, argnums=(0, 2)), in_dims=(0, 0, 0)),
        lambda f: torch.func.grad(lambda *t: torch.vmap(f)(*t).sum(), argnums=(0, 2)),
        lambda f: torch.func.jacrev(torch.func.grad(f)),
    ):
        torch.testing.assert_close(
            transform(fused)(student, teacher, sigma), transform(plain)(student, teacher, sigma)
        )


def test_func_grad_runs_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = launched(monkeypatch)
    torch.func.grad(fused)(*inputs(CASE))
    assert seen == [(False, False, False), (True, False, False)]


def test_copies_only_what_lies_otherwise() -> None:
    """Gaps, an expanded student, a teacher or a full σ in another order: right, by a copy."""
    wide, teacher, sigma = inputs(Case((2, 6, 4, 8), (2, 6, 4, 8), options=NAMED))
    for student in (
        wide[..., ::2],
        wide[:1, :1, :, :4].expand(2, 6, 4, 4),
        wide[..., :4].contiguous(memory_format=torch.channels_last),
        wide[..., :4].permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3),
    ):
        tensors = [
            tensor.detach().requires_grad_()
            for tensor in (student, teacher[..., :4], sigma[..., 4:])
        ]
        loss = fused(*tensors)
        loss.backward()
        reference = expected(*tensors, **NAMED)
        assert not reference.errors((loss, *(tensor.grad for tensor in tensors)))
