"""The torch operators where there is neither a GPU nor an interpreter: tracing and refusals."""

import subprocess
import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

import ulfd_torch  # noqa: E402
from ulfd.kernels import registry  # noqa: E402
from ulfd.options import LossOptions  # noqa: E402

NHWC = torch.channels_last
SIGMAS = [(4, 8, 5, 5), (4, 1, 5, 5), (4, 1, 1, 1), (1, 8, 1, 1), (8, 5, 1), (), None]
needs_triton = pytest.mark.skipif(
    registry.KERNELS["triton"].unavailable() is not None, reason="Triton is not installed"
)


def problem(**changes: Any) -> registry.Problem:
    given: dict[str, Any] = {
        "framework": "torch",
        "device": "cuda",
        "dtypes": ("float16", "float32", "bfloat16"),
        "shape": (4, 8, 5, 5),
        "log_variance_shape": (4, 1, 5, 5),
    }
    return registry.Problem(**(given | changes))


@needs_triton
def test_tensors_on_a_gpu_take_the_kernel() -> None:
    assert registry.select(problem()) == "triton"
    assert registry.refusals(problem())["triton"] is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "cpu"}, "student is on cpu"),
        ({"dtypes": ("float64", "float32")}, "float64 inputs go to the composite form"),
        ({"options": LossOptions(reduction="none")}, "reduction='none'"),
        ({"framework": "numpy"}, "it serves torch and jax"),
    ],
)
def test_what_it_does_not_serve_it_refuses_with_the_reason(changes: Any, reason: str) -> None:
    given = problem(**changes)
    assert reason in str(registry.refusals(given)["triton"])
    assert registry.select(given) != "triton"
    with pytest.raises(ValueError, match=reason.replace("(", r"\(")):
        registry.select(given, "triton")


def test_a_missing_triton_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        registry, "_TRITON_MISSING", "triton is not installed: pip install 'ulfd[triton]'"
    )
    assert registry.KERNELS["triton"].unavailable() is not None
    with pytest.raises(ValueError, match=r"pip install 'ulfd\[triton\]'"):
        registry.select(problem(), "triton")


def test_the_environments_report_names_the_kernel() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ulfd.env"], capture_output=True, text=True, check=True
    )
    state = done.stdout.split("kernel triton: ")[1].splitlines()[0]
    if torch.cuda.is_available():
        assert state == "available"
    else:
        assert state == "unavailable: it serves cuda devices, and this machine shows none"


@needs_triton
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, NHWC])
def test_fake_cuda_tensors(sigma: Any, layout: Any) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        student, teacher = (
            torch.empty(4, 8, 5, 5, device="cuda", dtype=dtype).to(memory_format=layout)
            for dtype in (torch.float16, torch.bfloat16)
        )
        given = None if sigma is None else torch.empty(sigma, device="cuda")
        loss, gradients = ulfd_torch.value_and_grad(
            student, teacher, given, upstream=torch.empty((), device="cuda")
        )
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert loss.device.type == "cuda"
        for gradient, tensor in zip(gradients, (student, teacher, given), strict=True):
            if tensor is not None:
                assert (gradient.shape, gradient.dtype) == (tensor.shape, tensor.dtype)
        assert gradients.student.stride() == student.stride()


@needs_triton
def test_export_keeps_the_operator() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        student, teacher = (torch.empty(4, 8, 5, 5, device="cuda") for _ in range(2))
        sigma = torch.empty(4, 1, 5, 5, device="cuda")
    module = ulfd_torch.ULFDLoss(weight=0.1)
    batch = torch.export.Dim("batch", min=2, max=512)
    program = torch.export.export(
        module, (student, teacher, sigma), dynamic_shapes=({0: batch}, {0: batch}, {0: batch})
    )
    assert [str(node.target) for node in program.graph.nodes if "ulfd" in str(node.target)] == [
        "ulfd.fused_loss.default"
    ]


@needs_triton
def test_compiling_for_a_gpu_traces_without_one() -> None:
    torch._dynamo.reset()
    names: list[str] = []

    def backend(graph: Any, example: Any) -> Any:
        names.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    compiled = torch.compile(ulfd_torch.ULFDLoss(), fullgraph=True, backend=backend)
    with FakeTensorMode(allow_non_fake_inputs=True):
        compiled(*(torch.empty(4, 8, 5, 5, device="cuda") for _ in range(3)))
    assert any("fused_loss" in name for name in names)


def test_a_resnet50_step_has_no_graph_break() -> None:
    torchvision = pytest.importorskip("torchvision")
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = torchvision.models.resnet50(num_classes=4)
    body = torch.nn.Sequential(*list(model.children())[:-2])
    sigma_of = torch.nn.Conv2d(2048, 1, 1)
    loss = ulfd_torch.ULFDLoss(weight=0.1)

    def step(clean: Any, degraded: Any, labels: Any) -> Any:
        z, z_hat = body(clean), body(degraded)
        logits = model.fc(z_hat.mean((2, 3)))
        return torch.nn.functional.cross_entropy(logits, labels) + loss(z_hat, z, sigma_of(z_hat))

    inputs = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32), torch.tensor([0, 3])
    for module in (model, body):
        module.eval()  # batch statistics of two images would make the comparison a matter of luck
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    value = compiled(*inputs)
    value.backward()
    torch.testing.assert_close(value, step(*inputs))
    assert all(parameter.grad is not None for parameter in body.parameters())
