"""The fused kernels on a real GPU: numbers, layouts, graphs, sizes beyond 32 bits."""

import dataclasses
from typing import Any

import pytest

torch = pytest.importorskip("torch")

if not torch.cuda.is_available():
    pytest.skip("no GPU: torch.cuda.is_available() is False", allow_module_level=True)
pytest.importorskip("triton", reason="Triton is needed: pip install 'ulfd[triton]'")

import ulfd_torch  # noqa: E402
from tests.ulfd.kernels.cases import (  # noqa: E402
    CASES,
    DTYPES,
    IMPLEMENTED,
    NHWC,
    Case,
    expected,
    inputs,
)
from ulfd import FAMILY  # noqa: E402

pytestmark = pytest.mark.gpu
LARGE = [
    *(Case((64, 256, 7, 7), sigma, order, dtypes, {"weight": 0.1})
      for sigma in ((64, 256, 7, 7), (64, 1, 7, 7), (64, 1, 1, 1), (1, 256, 1, 1), (), None)
      for order in (None, NHWC)
      for dtypes in DTYPES[:3]),
    Case((37, 1003), (37, 1)),
    Case((1003, 37), (37,)),
    Case((1_000_003,), (1_000_003,), offset=1),
    Case((33, 65, 9, 9), (33, 1, 9, 9)),
    Case((300, 197, 384), (300, 197, 1), None, DTYPES[1]),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _poisoned() -> Any:
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("case", [*CASES, *LARGE], ids=str)
def test_against_the_oracle(case: Case) -> None:
    tensors = [t if t is None else t.requires_grad_() for t in inputs(case, "cuda")]
    reference = expected(*tensors, upstream=0.37, **case.options)
    with torch.no_grad():
        loss, gradients = ulfd_torch.value_and_grad(
            *tensors, upstream=0.37, implementation="triton", **case.options
        )
    assert not reference.errors((loss, *gradients))
    again = ulfd_torch.ulfd_loss(*tensors, **case.options)
    again.backward(torch.tensor(0.37, device="cuda"))
    assert not reference.errors((again, *(t if t is None else t.grad for t in tensors)))


def test_the_automatic_choice_is_this_kernel() -> None:
    tensors = inputs(Case((64, 256, 7, 7), (64, 1, 7, 7)), "cuda")
    automatic = ulfd_torch.ulfd_loss(tensors[0].requires_grad_(), *tensors[1:])
    assert "fused_loss" in type(automatic.grad_fn).__name__


@pytest.mark.parametrize("name", IMPLEMENTED)
def test_every_member_of_the_family(name: str) -> None:
    member = FAMILY[name]
    sigma = {"none": None, "channel": (1, 6, 1, 1), "any": (2, 1, 7, 7)}[member.log_variance]
    case = Case((2, 6, 7, 7), sigma, options=dict(member.options))
    tensors = inputs(case, "cuda")
    loss, gradients = ulfd_torch.value_and_grad(*tensors, implementation="triton", **case.options)
    assert not expected(*tensors, **case.options).errors((loss, *gradients))


def test_no_synchronisation_and_same_bits_in_a_graph() -> None:
    tensors = inputs(Case((64, 256, 7, 7), (64, 1, 7, 7)), "cuda")
    upstream = torch.tensor(0.37, device="cuda")

    def step() -> list[Any]:
        student, teacher, sigma = (tensor.detach().requires_grad_() for tensor in tensors)
        loss = ulfd_torch.ulfd_loss(student, teacher.detach(), sigma, implementation="triton")
        return [loss, *torch.autograd.grad(loss, (student, sigma), upstream)]

    first = step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        second = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for tensor in captured:
        tensor.detach().fill_(float("nan"))
    graph.replay()
    for a, b, c in zip(first, second, captured, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_a_new_batch_size_or_weight_compiles_nothing() -> None:
    from ulfd.kernels import triton_fused

    def compiled() -> int:
        kernels = (triton_fused.over_rows, triton_fused.over_columns, triton_fused.finish)
        return sum(len(cache[0]) for k in kernels for cache in k.device_caches.values())

    shapes = ((1, 64, 1, 1), (-1, 1, 7, 7), (-1, 1, 1, 1), (-1, 64, 7, 7))
    counts = []
    for batch in (48, 47, 33, 1):
        for sigma in shapes:
            sigma = tuple(batch if size == -1 else size for size in sigma)
            for order in (None, NHWC):
                case = Case((batch, 64, 7, 7), sigma, order)
                tensors = [t.requires_grad_() for t in inputs(case, "cuda")]
                options = {"weight": 1.0 / batch, "implementation": "triton"}
                ulfd_torch.ulfd_loss(*tensors, **options).backward()
                ulfd_torch.value_and_grad(*tensors, **options)
        counts.append(compiled())
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_fullgraph(dynamic: bool) -> None:
    torch._dynamo.reset()
    module = torch.compile(ulfd_torch.ULFDLoss(weight=0.1), fullgraph=True, dynamic=dynamic)
    for batch in (4, 5):
        case = Case((batch, 64, 7, 7), (batch, 1, 7, 7), NHWC, DTYPES[1], {"weight": 0.1})
        tensors = [t.requires_grad_() for t in inputs(case, "cuda")]
        loss = module(*tensors)
        loss.backward()
        results = (loss, *(tensor.grad for tensor in tensors))
        assert not expected(*tensors, **case.options).errors(results)


def test_more_elements_than_32_bits_can_count() -> None:
    size = 2**31 + 4097
    if torch.cuda.get_device_properties(0).total_memory < 34e9:
        pytest.skip("needs 34 GB of GPU memory")
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.manual_seed(0)
    student, teacher, sigma = (
        torch.empty(size, dtype=torch.bfloat16, device="cuda").normal_() for _ in range(3)
    )
    loss, gradients = ulfd_torch.value_and_grad(
        student, teacher, sigma, reduction="sum", teacher_gradient=False, implementation="triton"
    )
    total = 0.0
    for first in range(0, size, 2**28):
        piece = slice(first, first + 2**28)
        total += ulfd_torch.ulfd_loss(
            student[piece], teacher[piece], sigma[piece], reduction="sum"
        ).double()
    assert abs(loss.double() - total) < 1e-4 * total
    for piece in (slice(0, 5000), slice(2**31 - 3000, 2**31 + 3000), slice(size - 5000, size)):
        part = expected(student[piece], teacher[piece], sigma[piece], reduction="sum")
        ours = (gradients.student[piece], None, gradients.log_variance[piece])
        values = (None, part.values[1], None, part.values[3])
        assert not dataclasses.replace(part, values=values).errors((None, *ours))


def test_the_kernel_follows_the_tensors_device() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    case = Case((8, 64, 7, 7), (8, 1, 7, 7))
    tensors = inputs(case, "cuda:1")
    loss, gradients = ulfd_torch.value_and_grad(*tensors, implementation="triton")
    assert loss.device.index == 1
    assert not expected(*tensors).errors((loss, *gradients))
