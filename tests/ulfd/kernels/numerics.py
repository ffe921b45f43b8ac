"""The kernels' numbers under Triton's interpreter, against the float64 oracle.

Not collected by itself: `test_fused.py` runs it for each kernel, for Triton's in its interpreter.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import ulfd_torch
from tests.ulfd.kernels.cases import (
    BETA_NLL,
    CASES,
    DTYPES,
    IMPLEMENTED,
    KERNEL,
    Case,
    expected,
    inputs,
)
from ulfd import FAMILY
from ulfd.kernels import triton_configs
from ulfd.options import LossOptions

# Small tiles make small inputs cover several programs, the interior and the tail.
SMALL = triton_configs.Config(256, 1, triton_configs.Columns(256, 1, width=64, programs=6))


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fresh memory is NaN, so that an element nobody writes cannot pass."""
    monkeypatch.setattr(triton_configs, "DEFAULT", {4: SMALL, 2: SMALL})
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def one_pass(case: Case, tensors: Any, upstream: float = 0.37, **options: Any) -> tuple[Any, ...]:
    loss, gradients = ulfd_torch.value_and_grad(
        *tensors,
        upstream=upstream,
        implementation=KERNEL,
        **case.options,
        **options,
    )
    return loss, *gradients


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_pass_matches_the_oracle(case: Case) -> None:
    tensors = inputs(case)
    reference = expected(*tensors, upstream=0.37, **case.options)
    copies = [tensor if tensor is None else tensor.clone() for tensor in tensors]
    results = one_pass(case, tensors)
    assert not reference.errors(results)
    assert results[0].dtype == torch.float32
    for result, tensor, copy in zip(results[1:], tensors, copies, strict=True):
        if tensor is not None:
            assert result.dtype == tensor.dtype
            assert torch.equal(tensor, copy), "an input was changed"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_autograd_matches_the_oracle(case: Case) -> None:
    tensors = [t if t is None else t.requires_grad_() for t in inputs(case)]
    loss = ulfd_torch.ulfd_loss(*tensors, implementation=KERNEL, **case.options)
    loss.backward(torch.tensor(-2.5))
    reference = expected(*tensors, upstream=-2.5, **case.options)
    gradients = (None if tensor is None else tensor.grad for tensor in tensors)
    assert not reference.errors((loss, *gradients))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_tolerances_are_not_vacuous(case: Case) -> None:
    """Zero, sign-flipped and unscaled gradients fail the same bounds."""
    tensors = inputs(case)
    reference = expected(*tensors, upstream=0.37, **case.options)
    loss, *gradients = reference.values
    for change in (lambda g: 0 * g, lambda g: -g, lambda g: g / 0.37, lambda g: g * 1.01):
        changed = [g if g is None else torch.as_tensor(change(g)) for g in gradients]
        wrong = reference.errors((torch.as_tensor(loss), *changed))
        assert len(wrong) == sum(g is not None and bool(np.any(g)) for g in gradients)
    assert reference.errors((torch.as_tensor(loss * 1.001), *map(_tensor, gradients)))


def _tensor(array: Any) -> Any:
    return None if array is None else torch.as_tensor(array)


@pytest.mark.parametrize("name", IMPLEMENTED)
def test_every_member_of_the_family(name: str) -> None:
    member = FAMILY[name]
    shapes = {"none": [None], "channel": [(1, 6, 1, 1)], "any": [(2, 6, 7, 7), (2, 1, 7, 7), ()]}
    for sigma in shapes[member.log_variance]:
        case = Case((2, 6, 7, 7), sigma, options=dict(member.options))
        tensors = inputs(case)
        reference = expected(*tensors, upstream=0.37, **case.options)
        assert not reference.errors(one_pass(case, tensors))


@pytest.mark.parametrize("dtypes", DTYPES)
def test_the_default_tiles(monkeypatch: pytest.MonkeyPatch, dtypes: Any) -> None:
    monkeypatch.undo()
    for shape, sigma in (
        ((5003,), (5003,)),
        ((3, 5003), (3, 1)),
        ((9, 130, 7, 7), (9, 1, 7, 7)),
        ((40, 300), (1, 300)),
    ):
        case = Case(shape, sigma, None, dtypes, BETA_NLL)
        tensors = inputs(case)
        reference = expected(*tensors, upstream=0.37, **case.options)
        assert not reference.errors(one_pass(case, tensors))


def test_runs_agree_bit_for_bit() -> None:
    case = Case((4, 12, 7, 7), (4, 1, 7, 7))
    tensors = inputs(case)
    first, second = one_pass(case, tensors), one_pass(case, tensors)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_fp16_gradients_of_a_mean_do_not_underflow() -> None:
    """GradScaler's 65536 meets 1/N in float32, before the gradient is rounded to float16."""
    case = Case((2, 6, 7, 7), (2, 6, 7, 7), None, DTYPES[2], {"weight": 1e-4})
    tensors = inputs(case)
    reference = expected(*tensors, upstream=65536.0, **case.options)
    results = one_pass(case, tensors, upstream=65536.0)
    assert not reference.errors(results)
    assert results[1].count_nonzero() == results[1].numel()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_a_sum_over_nothing_is_zero(shape: tuple[int, ...]) -> None:
    student = torch.empty(shape, requires_grad=True)
    sigma = torch.zeros(shape[-1:], requires_grad=True)
    loss = ulfd_torch.ulfd_loss(
        student, torch.empty(shape), sigma, reduction="sum", implementation=KERNEL
    )
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert student.grad.shape == shape
    assert torch.equal(sigma.grad, torch.zeros_like(sigma))


# 2·1e38·√e is a float32: in whichever order the factors of a gradient are taken, none overflows.
HOSTILE = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, 1e38, -200.0, 200.0)


@pytest.mark.parametrize("clamp", [None, (-1.0, 1.0)])
@pytest.mark.parametrize("sigma", [(9, 9, 9), (9, 1, 1), (1, 9, 1), (1, 1, 9)])
def test_special_values_spread_as_in_the_plain_form(sigma: tuple[int, ...], clamp: Any) -> None:
    """Each special value as student, teacher and σ at once, against the float32 closed form."""
    values = torch.tensor(HOSTILE)
    student = values.reshape(9, 1, 1).expand(9, 9, 9).contiguous()
    teacher = values.reshape(1, 9, 1).expand(9, 9, 9).contiguous()
    given = values.reshape([size if size > 1 else 1 for size in sigma]) if 1 in sigma else None
    if given is None:
        given = values.expand(9, 9, 9).contiguous()
    options = {"clamp": clamp, "reduction": "sum"}
    plain = ulfd_torch.value_and_grad(
        student, teacher, given, implementation="composite", **options
    )
    fused = ulfd_torch.value_and_grad(student, teacher, given, implementation=KERNEL, **options)
    pairs = [(plain[0], fused[0]), *zip(plain[1], fused[1], strict=True)]
    for theirs, ours in pairs:
        assert torch.equal(theirs.isnan(), ours.isnan())
        assert torch.equal(theirs.isposinf(), ours.isposinf())
        assert torch.equal(theirs.isneginf(), ours.isneginf())
        finite = theirs.isfinite()
        # Among subnormal numbers a rounding is a whole unit of 2⁻¹⁴⁹.
        torch.testing.assert_close(ours[finite], theirs[finite], rtol=1e-4, atol=2 * 2.0**-149)


def test_the_clamp_stops_the_gradient_and_keeps_nan() -> None:
    given = torch.tensor([-3.0, 0.25, 3.0, math.nan, -1.0, 1.0])
    student = torch.ones(6)
    _, gradients = ulfd_torch.value_and_grad(
        student, torch.zeros(6), given, clamp=(-1.0, 1.0), implementation=KERNEL
    )
    assert gradients.log_variance[0] == 0 == gradients.log_variance[2]
    assert gradients.log_variance[3].isnan()
    assert gradients.student[3].isnan()
    assert (gradients.log_variance[[1, 4, 5]] != 0).all()


@st.composite
def problems(draw: st.DrawFn) -> tuple[Case, Any]:
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    sigma = tuple(draw(st.sampled_from((1, size))) for size in shape)
    sigma = sigma[draw(st.integers(0, len(shape))) :]
    order = tuple(draw(st.permutations(range(len(shape)))))
    dtypes = tuple(draw(st.sampled_from(DTYPES)))
    clamp = draw(st.sampled_from((None, (-2.0, 3.0))))
    options = {
        "prior_weight": draw(st.sampled_from((2.0, 1.0, 0.0))),
        "weight": draw(st.sampled_from((1.0, 0.1))),
        "reduction": draw(st.sampled_from(("mean", "batchmean", "sum"))),
        "beta": draw(st.sampled_from((0.0, 0.5))),
        "clamp": clamp,
    }
    case = Case(shape, sigma, order, dtypes, options, draw(st.integers(0, 3)))

    def numbers(size: tuple[int, ...], limit: float) -> Any:
        floats = st.floats(-limit, limit, width=16)
        return draw(arrays(np.float32, size, elements=floats))

    tensors = list(inputs(case))
    # |gradient| < 2·e²·200·16 stays inside float16's 65504.
    for index, (size, limit) in enumerate(((shape, 100.0), (shape, 100.0), (sigma, 2.0))):
        tensors[index].copy_(torch.as_tensor(numbers(size, limit)))
    return case, tensors


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(problem=problems())
def test_any_shape_order_and_value(problem: Any) -> None:
    case, tensors = problem
    upstream = 0.01
    reference = expected(*tensors, upstream=upstream, **case.options)
    assert not reference.errors(one_pass(case, tensors, upstream=upstream))


@pytest.mark.skipif(KERNEL != "triton", reason="the native kernel has 64-bit offsets only")
def test_offsets_beyond_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last two programs of 2³¹ + 300 elements, over memory of which only they touch a page."""
    from triton.runtime import interpreter

    from ulfd.kernels import triton_fused

    size, dtype = 2**31 + 300, torch.bfloat16
    torch.utils.deterministic.fill_uninitialized_memory = False
    student, teacher, sigma, by_student, by_sigma = (
        torch.empty(size, dtype=dtype) for _ in "abcde"
    )
    tail = slice(2**31 - 212, size)
    for tensor in (student, teacher, sigma):
        tensor[tail] = torch.randn(512)
    launch = triton_configs.launch(size, (triton_configs.Run(size, True),), 2, SMALL)
    assert launch.grid == 2**23 + 2
    losses = torch.zeros(launch.grid)
    first = launch.grid - 3
    builder = interpreter.interpreter_builder
    move, widen = builder.set_grid_idx, builder.set_grid_dim
    monkeypatch.setattr(builder, "set_grid_idx", lambda x, y, z: move(x + first, y, z))
    monkeypatch.setattr(builder, "set_grid_dim", lambda x, y, z: widen(launch.grid, y, z))
    # Copying 4 GB onto itself is all that this would do for memory of the host.
    monkeypatch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *arguments: None)
    over_rows = triton_fused.over_rows
    constants = triton_fused.constants(launch, LossOptions())
    over_rows[(3,)](
        student, teacher, sigma, None, by_student, None, by_sigma, losses,
        **launch.integers, scale_bits=triton_fused.scale_bits(1.0), **constants,
    )  # fmt: skip
    piece = slice(first * 256, size)
    reference = expected(student[piece], teacher[piece], sigma[piece], reduction="sum")
    results = losses.double().sum(), by_student[piece], None, by_sigma[piece]
    reference = dataclasses.replace(
        reference, values=(*reference.values[:2], None, reference.values[3])
    )
    assert not reference.errors(results)
