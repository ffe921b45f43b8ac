"""Bad input: the error says what was given, what was expected and how to fix it."""

import numpy as np
import pytest
import torch

import ulfd
import ulfd_jax
import ulfd_torch

X = np.zeros((4, 8, 7, 7), np.float32)
BAD = {
    "teacher": ((X, X[:, :4]), {}, ValueError, r"\(4, 8, 7, 7\).*\(4, 4, 7, 7\).*Project"),
    "sigma": ((X, X, X[:, :4]), {}, ValueError, r"\(4, 4, 7, 7\) does not broadcast.*give"),
    "sigma, last": ((X, X, X[..., :2]), {}, ValueError, r"\(B, H, W, C\).*\(1, 1, 1, C\)"),
    "sigma larger": ((X[:1], X[:1], X), {}, ValueError, "does not broadcast"),
    "sigma rank": ((X, X, X[None]), {}, ValueError, "does not broadcast"),
    "integers": ((X.astype(np.int64), X), {}, TypeError, "student has dtype int64.*convert"),
    "complex": ((X, X.astype(np.complex64)), {}, TypeError, "teacher has dtype complex64"),
    "bool sigma": ((X, X, X > 0), {}, TypeError, "log_variance has dtype bool"),
    "empty": ((X[:0], X[:0]), {}, ValueError, "empty batch.*reduction='sum'"),
    "empty batchmean": ((X[:0], X[:0]), {"reduction": "batchmean"}, ValueError, "empty batch"),
    "no batch": ((X[0, 0, 0, 0],) * 2, {"reduction": "batchmean"}, ValueError, "first axis"),
    "reduction": ((X, X), {"reduction": "avg"}, ValueError, "unknown reduction 'avg'.*'mean'"),
    "beta": ((X, X), {"beta": -1.0}, ValueError, "beta is -1.0"),
    "clamp": ((X, X), {"clamp": (1.0, -1.0)}, ValueError, "low < high"),
    "clamp, one number": ((X, X), {"clamp": 10}, ValueError, r"clamp is 10.*\(low, high\)"),
    "clamp, words": ((X, X), {"clamp": ("a", "b")}, ValueError, r"clamp is \('a', 'b'\)"),
    "infinite": ((X, X), {"prior_weight": np.inf}, ValueError, "prior_weight is inf.*finite"),
    "no likelihood": ((X, X), {"likelihood": None}, ValueError, "unknown likelihood None; use"),
    "likelihood of bytes": ((X, X), {"likelihood": b"laplace"}, ValueError, "b'laplace'; use"),
    "no ν": ((X, X), {"likelihood": "student_t"}, ValueError, r"give it as \('student_t', 4.0\)"),
    "ν of words": ((X, X), {"likelihood": ("student_t", "4")}, TypeError, "degrees of 'student_t'"),
    "infinite ν": ((X, X), {"likelihood": ("student_t", np.inf)}, ValueError, "must be finite"),
    "kernel": ((X, X), {"implementation": "magic"}, ValueError, "'magic'.*composite"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("adapter", ["numpy", "torch"])
def test_bad_input(adapter, name):
    arrays, options, error, message = BAD[name]
    if adapter == "numpy":
        with pytest.raises(error, match=message):
            ulfd.ulfd_loss(*arrays, **options)
        with pytest.raises(error, match=message):
            ulfd.value_and_grad(*arrays, **options)
        return
    tensors = [torch.tensor(array) for array in arrays]
    with pytest.raises(error, match=message):
        ulfd_torch.ulfd_loss(*tensors, **options)


def test_mixed_devices():
    with pytest.raises(ValueError, match=r"student is on cpu but teacher on meta.*one device"):
        ulfd_torch.ulfd_loss(torch.zeros(3), torch.zeros(3, device="meta"))


def test_another_frameworks_array_is_sent_to_its_adapter():
    with pytest.raises(TypeError, match=r"ulfd_torch\.ulfd_loss"):
        ulfd.ulfd_loss(torch.zeros(3), torch.zeros(3))


def test_the_module_checks_its_options_at_once():
    with pytest.raises(ValueError, match="unknown reduction"):
        ulfd_torch.ULFDLoss(reduction="average")
    with pytest.raises(ValueError, match="clamp"):
        ulfd_torch.ULFDLoss(clamp=(2.0, 2.0))
    with pytest.raises(ValueError, match="clamp is 10"):
        ulfd_torch.ULFDLoss(clamp=10)


def test_sum_and_none_of_an_empty_batch_are_defined():
    assert ulfd.ulfd_loss(X[:0], X[:0], X[:0], reduction="sum") == 0
    loss, gradients = ulfd.value_and_grad(X[:0], X[:0], X[:0], reduction="none")
    assert loss.shape == gradients.student.shape == (0, 8, 7, 7)


@pytest.mark.parametrize("adapter", [ulfd, ulfd_jax])
@pytest.mark.parametrize("name", ["student", "teacher", "log_variance", "upstream"])
def test_a_masked_array_is_refused(adapter, name):
    """Its mask would be dropped on the way."""
    inputs = {key: np.zeros(3, np.float32) for key in ("student", "teacher", "log_variance")}
    inputs[name] = np.ma.masked_array(np.zeros(3, np.float32), [False, True, False])
    with pytest.raises(TypeError, match=rf"{name} is a masked array.*{name}\.filled"):
        adapter.value_and_grad(**inputs, reduction="none")


@pytest.mark.parametrize("implementation", ["native", "composite"])
def test_a_number_keeps_its_digits(implementation):
    ones, zeros = np.ones(3, np.float16), np.zeros(3, np.float16)
    found = ulfd.ulfd_loss(ones, zeros, 9.99, implementation=implementation)
    assert found == pytest.approx(np.exp(-9.99) + 2 * 9.99, rel=1e-6)
    doubles = np.arange(6.0), np.zeros(6), np.zeros(6)
    _, gradients = ulfd.value_and_grad(*doubles, upstream=0.1, implementation=implementation)
    np.testing.assert_allclose(gradients.student, 0.2 * np.arange(6) / 6, rtol=1e-14)


@pytest.mark.parametrize("adapter", [ulfd, ulfd_torch, ulfd_jax])
def test_what_arrives_is_a_number_or_has_the_losss_shape(adapter):
    inputs = np.zeros((2, 3), np.float32)
    if adapter is ulfd_torch:
        inputs = torch.from_numpy(inputs)
    with pytest.raises(TypeError, match="upstream is None, but must be a number"):
        adapter.value_and_grad(inputs, inputs, upstream=None)
    with pytest.raises(ValueError, match=r"has shape \(2, 3\), but the loss \(\); they must"):
        adapter.value_and_grad(inputs, inputs, upstream=inputs)
    with pytest.raises(ValueError, match=r"has shape \(3,\), but the loss \(2, 3\); they must"):
        adapter.value_and_grad(inputs, inputs, upstream=inputs[0], reduction="none")
    with pytest.raises(TypeError, match="upstream is complex, but must be real"):
        adapter.value_and_grad(inputs, inputs, upstream=1j)
    _, gradients = adapter.value_and_grad(inputs + 1, inputs, upstream=np.float32(0.5))
    np.testing.assert_allclose(gradients.student, 1 / 6, rtol=1e-6)


@pytest.mark.parametrize(
    "upstream", [[1.0], np.array(0.5), np.ones((2, 3)), np.ma.masked_array(0.5, True)]
)
def test_torch_takes_a_number_or_a_tensor_for_what_arrives(upstream):
    """A masked 0.5 was 1."""
    ones = torch.ones(2, 3)
    with pytest.raises(TypeError, match=r"upstream is a .*; convert it with torch\.as_tensor"):
        ulfd_torch.value_and_grad(ones, ones, upstream=upstream, reduction="none")
    with pytest.raises(TypeError, match="upstream is complex, but must be real"):
        ulfd_torch.value_and_grad(ones, ones, upstream=torch.tensor(1j))
