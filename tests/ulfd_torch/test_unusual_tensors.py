"""Tensors and circumstances that PyTorch allows: each gives the right value, or is refused."""

import numpy as np
import pytest
import torch
from torch import distributed
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from tests.oracle import exact, make_case
from ulfd_torch import UEM, SelfDistillation, loss_statistics, ulfd_loss, value_and_grad

SHAPE, SIGMA = (4, 6, 5), (4, 1, 5)
KERNELS = pytest.mark.parametrize("implementation", [None, "native", "composite"])


def inputs(dtype=torch.float32):
    case = make_case(SHAPE, SIGMA, lambda array: np.float32(array).astype(float))
    return case, [
        torch.tensor(x).to(dtype) for x in (case.student, case.teacher, case.log_variance)
    ]


def close(loss, gradients, case, upstream=1.0, **options):
    value, truth = exact(case, upstream, **options)
    np.testing.assert_allclose(loss.detach(), value, rtol=1e-5)
    for ours, expected in zip(gradients, truth, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-7)


@pytest.fixture(params=["bfloat16", "float64", "meta"])
def defaults(request):
    """A default dtype or device that is none of the inputs'."""
    case, tensors = inputs()
    try:
        if request.param == "meta":
            torch.set_default_device("meta")
        else:
            torch.set_default_dtype(getattr(torch, request.param))
        yield case, tensors
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


@KERNELS
def test_nothing_depends_on_the_defaults(defaults, implementation):
    case, tensors = defaults
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    loss = ulfd_loss(*leaves, implementation=implementation)
    assert (loss.dtype, loss.device.type) == (torch.float32, "cpu")
    close(loss, torch.autograd.grad(loss, leaves), case)
    close(*value_and_grad(*tensors, upstream=0.5, implementation=implementation), case, 0.5)
    number = ulfd_loss(*tensors[:2], 0.5, implementation=implementation)
    truth = np.exp(-0.5) * np.square(case.student - case.teacher).mean() + 1
    assert number.item() == pytest.approx(truth, rel=1e-5)
    found = loss_statistics(*tensors, clamp=(-1.0, 1.0))
    assert all(number.dtype == torch.float32 for number in found)
    assert all(number.device.type == "cpu" for number in found)
    assert found.log_variance_mean.item() == pytest.approx(case.log_variance.mean(), rel=1e-5)


@pytest.mark.usefixtures("defaults")
def test_a_step_depends_on_no_default():
    with torch.device("cpu"):
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(),
                                    torch.nn.Linear(4 * 36, 3))  # fmt: skip
        step = SelfDistillation(
            model, layer="1", uem=UEM.official(4, width=4, blocks=1), statistics=True
        )
        step.float()
        images, labels = torch.rand(2, 4, 3, 8, 8).float(), torch.tensor([0, 1, 2, 0])
    result = step(images[0], images[1], labels)
    assert (result.total.dtype, result.total.device.type) == (torch.float32, "cpu")


@KERNELS
def test_numbers_keep_their_digits(implementation):
    """An upstream gradient beside float64 features, and a number as σ beside half precision."""
    case, tensors = inputs(torch.float64)
    _, gradients = value_and_grad(*tensors, upstream=0.1, implementation=implementation)
    _, truth = exact(case, 0.1)
    for ours, expected in zip(gradients, truth, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-18)
    ones, zeros = torch.ones(3, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.bfloat16)
    found = ulfd_loss(ones, zeros, 9.99, implementation=implementation)
    assert found.item() == pytest.approx(np.exp(-9.99) + 2 * 9.99, rel=1e-6)
    found = ulfd_loss(ones.half(), zeros.half(), 1e5, implementation=implementation)
    assert found.item() == pytest.approx(2e5, rel=1e-6)


@KERNELS
def test_what_pytorch_has_put_off_is_materialised(implementation):
    case, (student, teacher, sigma) = inputs()
    negated = torch._neg_view(-student)
    assert negated.is_neg()
    close(*value_and_grad(negated, teacher, sigma, implementation=implementation), case)
    zeros = torch._efficientzerotensor(SHAPE)
    loss, _ = value_and_grad(student, zeros, sigma, implementation=implementation)
    expected = ulfd_loss(student, torch.zeros(SHAPE), sigma, implementation="composite")
    torch.testing.assert_close(loss, expected)
    none = torch._efficientzerotensor(())
    _, gradients = value_and_grad(
        student, teacher, sigma, upstream=none, implementation=implementation
    )
    assert not gradients.student.any()


@KERNELS
def test_a_teacher_from_inference_mode(implementation):
    case, (student, teacher, sigma) = inputs()
    with torch.inference_mode():
        held = teacher * 1
    assert held.is_inference()
    student.requires_grad_()
    sigma.requires_grad_()
    loss = ulfd_loss(student, held, sigma, implementation=implementation)
    loss.backward(torch.tensor(2.0))
    close(loss, (student.grad / 2, exact(case)[1].teacher, sigma.grad / 2), case)


@KERNELS
def test_many_upstream_gradients_at_once(implementation):
    case, tensors = inputs()
    leaves = [tensor.requires_grad_() for tensor in tensors]
    loss = ulfd_loss(*leaves, implementation=implementation)
    many = torch.tensor([1.0, -2.0, 0.0])
    found = torch.autograd.grad(loss, leaves, many, is_grads_batched=True)
    for index, upstream in enumerate(many.tolist()):
        for gradient, truth in zip(found, exact(case, upstream)[1], strict=True):
            np.testing.assert_allclose(gradient[index], truth, rtol=1e-4, atol=1e-7)
    jacobian = torch.autograd.functional.jacobian(
        lambda s: ulfd_loss(s, *tensors[1:], implementation=implementation)[None],
        tensors[0],
        vectorize=True,
    )
    np.testing.assert_allclose(jacobian[0], exact(case)[1].student, rtol=1e-4, atol=1e-7)


@pytest.fixture
def mesh(tmp_path):
    store = f"file://{tmp_path / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield distributed.init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("placement", [Shard(0), Replicate()])
def test_sharded_features_take_the_composite_form(mesh, placement):
    case, tensors = inputs()
    leaves = [distribute_tensor(tensor, mesh, [placement]).requires_grad_() for tensor in tensors]
    loss = ulfd_loss(*leaves)
    loss.backward()
    assert isinstance(leaves[0].grad, DTensor)
    close(loss.full_tensor(), [leaf.grad.full_tensor() for leaf in leaves], case)
    number = ulfd_loss(*leaves[:2], 0.5).full_tensor()
    torch.testing.assert_close(number, ulfd_loss(*tensors[:2], 0.5))
    with pytest.raises(ValueError, match=r"'native' cannot serve.*DTensor.*implementation=None"):
        ulfd_loss(*leaves, implementation="native")


@pytest.mark.filterwarnings("ignore:.*nested tensors|.*beta:UserWarning")
@pytest.mark.parametrize("make", ["to_sparse", "to_mkldnn", "nested", "float8"])
def test_what_no_kernel_reads_is_refused(make):
    dense = torch.rand(2, 4, 3, 3)
    if make == "nested":
        odd = torch.nested.nested_tensor([dense[0], dense[1]])
    else:
        odd = dense.to(torch.float8_e4m3fn) if make == "float8" else getattr(dense, make)()
    message = "dtype float8_e4m3fn" if make == "float8" else "a dense one is needed"
    for refused in (
        lambda: ulfd_loss(odd, odd),
        lambda: ulfd_loss(dense, dense, odd),
        lambda: value_and_grad(dense, odd),
        lambda: loss_statistics(odd, dense, dense),
        lambda: UEM(4)(odd),
        lambda: UEM.official(4)(odd),
    ):
        with pytest.raises(TypeError, match=message):
            refused()
