"""What torch adds to the loss: autograd's corners, autocast, compile."""

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from ulfd.gradients import vid_log_variance_derivative
from ulfd_torch import ULFDLoss, ulfd_loss, value_and_grad, vid_log_variance


def inputs(dtype=torch.float64, sigma=(3, 1, 5, 5)):
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4, 5, 5), (3, 4, 5, 5), sigma)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in shapes
    ]


@pytest.mark.parametrize("reduction", ["mean", "batchmean", "sum", "none"])
@pytest.mark.parametrize("sigma", [(3, 4, 5, 5), (3, 1, 5, 5), (3, 1, 1, 1), (1, 4, 1, 1), ()])
def test_gradcheck_first_and_second_order(reduction, sigma):
    def loss(*tensors):
        return ulfd_loss(*tensors, reduction=reduction, weight=0.3)

    assert torch.autograd.gradcheck(loss, inputs(sigma=sigma))
    assert torch.autograd.gradgradcheck(loss, inputs(sigma=sigma))


def test_gradient_penalty():
    """‖∂L/∂ẑ‖² of L = Σ(z − ẑ)² is Σ 4d², and its gradient 8d: never silently a constant's."""
    student = torch.tensor([2.0, 5.0], requires_grad=True)
    loss = ulfd_loss(student, torch.zeros(2), torch.zeros(2), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, student, create_graph=True)
    gradient.square().sum().backward()
    assert student.grad.tolist() == [16.0, 40.0]


def test_backward_twice_and_accumulation():
    once = inputs()
    ulfd_loss(*once).backward(torch.tensor(0.37, dtype=torch.float64))
    twice = inputs()
    loss = ulfd_loss(*twice)
    loss.backward(torch.tensor(0.37, dtype=torch.float64), retain_graph=True)
    loss.backward(torch.tensor(0.37, dtype=torch.float64))
    for a, b in zip(once, twice, strict=True):  # the second is recomputed: upstream comes earlier
        torch.testing.assert_close(2 * a.grad, b.grad, rtol=2.0**-50, atol=0)


def test_beta_weights_without_a_gradient_through_the_weight():
    student, teacher, sigma = inputs()
    elements = ulfd_loss(student, teacher, sigma, reduction="none", prior_weight=1.0)
    expected = (sigma.detach() * 0.5).exp() * elements
    expected.mean().backward()
    others = inputs()
    ulfd_loss(*others, beta=0.5, prior_weight=1.0).backward()
    for a, b in zip((student, teacher, sigma), others, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-15)


def test_gradients_only_where_they_are_asked_for():
    student, teacher, sigma = inputs()
    ulfd_loss(student, teacher.detach(), sigma).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_autocast_does_not_lower_the_loss():
    student, teacher, sigma = inputs(torch.float32)
    plain = ulfd_loss(student, teacher, sigma)
    with torch.autocast("cpu", torch.bfloat16):
        cast = ulfd_loss(student, teacher, sigma)
    assert cast.dtype == torch.float32
    assert torch.equal(plain, cast)


def test_mixed_dtypes_give_each_gradient_its_own():
    student, teacher, sigma = inputs(torch.float32)
    student = student.detach().bfloat16().requires_grad_()
    loss = ulfd_loss(student, teacher, sigma)
    loss.backward()
    assert loss.dtype == torch.float32
    assert (student.grad.dtype, teacher.grad.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("sigma", [(3, 4, 5, 5), (3, 1, 5, 5)])
def test_compiles_into_one_graph(sigma):
    module = ULFDLoss(weight=0.1, beta=0.5, clamp=(-5.0, 5.0))
    eager, compiled = inputs(torch.float32, sigma), inputs(torch.float32, sigma)
    expected = module(*eager)
    expected.backward()
    actual = torch.compile(module, fullgraph=True)(*compiled)
    actual.backward()
    torch.testing.assert_close(actual, expected)
    for a, b in zip(compiled, eager, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_functorch():
    student, teacher, sigma = (tensor.detach() for tensor in inputs())
    by_func = torch.func.grad(lambda s: ulfd_loss(s, teacher, sigma))(student)
    wanted = student.clone().requires_grad_()
    ulfd_loss(wanted, teacher, sigma).backward()
    torch.testing.assert_close(by_func, wanted.grad)
    each = torch.vmap(ulfd_loss)(student, teacher, sigma)
    assert each.shape == (3,)
    torch.testing.assert_close(each.mean(), ulfd_loss(student, teacher, sigma))


def test_vid_variance_has_the_closed_forms_gradient():
    raw = torch.linspace(-20, 20, 41, dtype=torch.float64).requires_grad_()  # 0 is among them
    vid_log_variance(raw).sum().backward()
    expected = vid_log_variance_derivative(raw.detach().numpy())
    torch.testing.assert_close(raw.grad, torch.tensor(expected), rtol=1e-9, atol=0)


def test_forward_mode_takes_the_composite_form():
    student, teacher, sigma = (torch.randn(3, 4, dtype=torch.float64) for _ in range(3))

    def loss(implementation):
        return lambda s: ulfd_loss(s, teacher, sigma, implementation=implementation)

    for transform in (
        lambda f: torch.func.jvp(f, (student,), (teacher,))[1],
        lambda f: torch.func.hessian(f)(student),
        lambda f: torch.func.jacfwd(f)(student),
    ):
        assert torch.equal(transform(loss(None)), transform(loss("composite")))


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("dual", range(4))
def test_a_kernel_that_would_drop_a_tangent_is_refused(gradients, dual):
    """With gradients off, nothing but this would say so."""
    tensors = [*torch.randn(3, 3, 4, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)]
    exact = value_and_grad(*tensors[:3])[1]

    def compute(implementation):
        fixed = {"upstream": tensors[3], "implementation": implementation}
        return value_and_grad(*tensors[:3], **fixed)[0]

    with torch.set_grad_enabled(gradients), forward_ad.dual_level():
        compute("native")  # has no tangent to drop
        tensors[dual] = forward_ad.make_dual(tensors[dual], torch.ones_like(tensors[dual]))
        with pytest.raises(ValueError, match="'native' has no forward-mode derivative; pass impl"):
            compute("native")
        tangent = forward_ad.unpack_dual(compute(None)).tangent
    if dual == 3:  # it weighs the gradients, not the loss
        assert tangent is None
    else:
        torch.testing.assert_close(tangent, exact[dual].sum())


TENSOR = torch.zeros(3)
NO_TENSORS = {
    "numpy": ((np.zeros(3), TENSOR), r"student is a numpy ndarray.*as_tensor, or use ulfd\.ulfd"),
    "teacher": ((TENSOR, TENSOR.numpy()), "teacher is a numpy ndarray"),
    "sigma": ((TENSOR, TENSOR, TENSOR.numpy()), "log_variance is a numpy ndarray"),
    "list": (([0.0], TENSOR, 1.0), r"student is a list; convert it with torch\.as_tensor\.$"),
}


@pytest.mark.parametrize("name", NO_TENSORS)
def test_what_is_no_tensor_is_sent_to_its_adapter(name):
    inputs, message = NO_TENSORS[name]
    for function in (ulfd_loss, value_and_grad):
        with pytest.raises(TypeError, match=message):
            function(*inputs)


def test_jax_arrays_are_sent_to_theirs():
    numpy = pytest.importorskip("jax.numpy")
    with pytest.raises(TypeError, match=r"student is a jaxlib ArrayImpl.*use ulfd_jax\.ulfd_loss"):
        ulfd_loss(numpy.zeros(3), TENSOR)
