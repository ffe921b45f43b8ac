"""On a CPU the loss keeps its gradients for the first backward pass: when, and never wrongly."""

import numpy as np
import pytest
import torch

from ulfd.gradients import closed_form
from ulfd.kernels.cpu import library
from ulfd_torch import ulfd_loss

pytestmark = pytest.mark.skipif(library.MISSING is not None, reason=str(library.MISSING))
HALF_UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53, torch.bfloat16: 2.0**-8}
ONCE, AGAIN = 1, 2  # calls of the kernel for a forward and a backward pass


@pytest.fixture
def calls(monkeypatch):
    """The calls of the kernel, each as what it was to write: loss, three gradients."""
    made, run = [], library.run

    def counted(*args, pointers, **options):
        made.append(tuple(pointer is not None for pointer in pointers[4:]))
        run(*args, pointers=pointers, **options)

    monkeypatch.setattr(library, "run", counted)
    return made


def inputs(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(3, 5, 4, 4, generator=generator).to(dtype).requires_grad_() for _ in range(3)
    ]


def assert_right(found, tensors, upstream):
    """Against the closed form in float64, to seven roundings of the dtype."""
    exact = closed_form(*(t.detach().double().numpy() for t in tensors), upstream=upstream)
    for gradient, truth in zip(found, exact, strict=True):
        assert gradient.dtype == tensors[0].dtype
        size = np.abs(truth).max()
        error = np.abs(gradient.double().numpy() - truth).max()
        assert error <= 8 * HALF_UNIT[gradient.dtype] * size


@pytest.mark.parametrize(
    ("dtype", "upstream", "passes"),
    [
        (torch.float32, 1.0, ONCE),
        (torch.float32, 0.37, ONCE),  # scaled
        (torch.float64, -3.0, ONCE),
        (torch.bfloat16, 1.0, ONCE),
        (torch.bfloat16, 0.37, AGAIN),  # they are rounded already
    ],
)
def test_a_backward_pass(calls, dtype, upstream, passes):
    tensors = inputs(dtype)
    loss = ulfd_loss(*tensors)
    arriving = torch.tensor(upstream, dtype=loss.dtype)
    assert_right(torch.autograd.grad(loss, tensors, arriving), tensors, upstream)
    assert len(calls) == passes


def test_float16_waits_for_its_loss_scale(calls):
    tensors = inputs(torch.float16)
    loss = ulfd_loss(*tensors, weight=1e-9)
    student, *_ = torch.autograd.grad(loss, tensors, torch.tensor(2.0**30))
    assert (student != 0).float().mean() > 0.9
    assert calls == [(True, False, False, False), (False, True, True, True)]


@pytest.mark.parametrize("upstream", [1.0, 0.37])
def test_what_becomes_of_them_does_not_reach_a_second_pass(calls, upstream):
    tensors = inputs()
    loss = ulfd_loss(*tensors)
    first = torch.autograd.grad(loss, tensors, torch.tensor(upstream), retain_graph=True)
    for gradient in first:
        gradient.zero_()
    second = torch.autograd.grad(loss, tensors, torch.tensor(upstream))
    assert_right(second, tensors, upstream)
    assert len(calls) == AGAIN


def test_a_leaf_takes_them_without_a_copy():
    student, teacher, sigma = inputs()
    loss = ulfd_loss(student, teacher.detach(), sigma)
    kept = loss.grad_fn.kept[0].data_ptr()
    loss.backward()
    assert student.grad.data_ptr() == kept
    assert loss.grad_fn.kept is None


def test_nothing_is_computed_that_nobody_can_ask_for(calls):
    student, teacher, sigma = inputs()
    with torch.no_grad():
        ulfd_loss(student, teacher, sigma)
    ulfd_loss(*(tensor.detach() for tensor in (student, teacher, sigma)))
    ulfd_loss(student, teacher.detach(), sigma)
    nothing = (True, False, False, False)
    assert calls == [nothing, nothing, (True, True, False, True)]


def test_inputs_that_were_changed_in_place_are_noticed():
    student, teacher, sigma = inputs()
    feature = student * 1
    loss = ulfd_loss(feature, teacher, sigma)
    with torch.no_grad():
        feature.relu_()
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


def test_a_freed_graph_is_noticed():
    loss = ulfd_loss(*inputs())
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
