"""Arrays of any library: NumPy's numbers, in that library, or a refusal that says what to do."""

import importlib

import numpy as np
import pytest

import ulfd

LIBRARIES = ("array_api_strict", "mlx.core")
OPTIONS = {
    "default": {},
    "none": {"reduction": "none"},
    "batchmean": {"reduction": "batchmean", "weight": 0.3},
    "clamp": {"clamp": (-0.5, 0.5)},
    "beta": {"beta": 0.5},
    "laplace": {"likelihood": "laplace", "prior_weight": 0.5},
    "student_t": {"likelihood": ("student_t", 4.0)},
    "faithful": {"gamma": 0.0},
    "gamma": {"gamma": 0.5},
}
SIGMAS = {
    "full": (3, 4, 2),
    "sample": (3, 1, 1),
    "channel": (1, 4, 1),
    "number": (),
    "absent": None,
}


@pytest.fixture(params=LIBRARIES)
def xp(request):
    pytest.importorskip(request.param.split(".")[0])
    return importlib.import_module(request.param)


def _inputs(sigma):
    student, teacher = np.random.default_rng(0).normal(size=(2, 3, 4, 2)).astype(np.float32)
    if SIGMAS[sigma] is None:
        return student, teacher, None
    return student, teacher, np.random.default_rng(1).normal(size=SIGMAS[sigma]).astype(np.float32)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_loss_and_its_gradients_are_numpys(xp, options, sigma):
    inputs = _inputs(sigma)
    theirs = [None if array is None else xp.asarray(array) for array in inputs]
    loss, gradients = ulfd.value_and_grad(*theirs, **options)
    # In float64: what NumPy's own arithmetic in float32 differs by is not the question.
    wide = [None if array is None else array.astype(np.float64) for array in inputs]
    exact, slopes = ulfd.value_and_grad(*wide, **options)
    np.testing.assert_allclose(np.array(loss), exact, rtol=1e-5, atol=1e-6)
    for gradient, slope, array in zip(gradients, slopes, theirs, strict=True):
        if array is None:
            assert gradient is None
            continue
        assert type(gradient) is type(array)
        assert gradient.dtype == array.dtype
        scale = np.abs(slope).max()
        np.testing.assert_allclose(np.array(gradient), slope, rtol=1e-5, atol=1e-6 * scale)
    assert float(np.abs(slopes.student).max()) > 0.01
    np.testing.assert_allclose(
        np.array(ulfd.ulfd_loss(*theirs, **options)), exact, rtol=1e-5, atol=1e-6
    )


def test_a_number_is_a_log_variance(xp):
    student, teacher, _ = _inputs("absent")
    exact = ulfd.ulfd_loss(student.astype(np.float64), teacher.astype(np.float64), 9.99)
    loss = ulfd.ulfd_loss(xp.asarray(student), xp.asarray(teacher), 9.99)
    assert type(loss) is type(xp.asarray(student))
    np.testing.assert_allclose(float(loss), float(exact), rtol=1e-6)


def test_libraries_are_not_mixed(xp):
    student, teacher, _ = _inputs("absent")
    with pytest.raises(TypeError, match=r"student is of .*teacher is of .*convert them to one"):
        ulfd.ulfd_loss(xp.asarray(student), teacher)


def test_the_native_kernel_says_whom_it_serves(xp):
    student, teacher, _ = _inputs("absent")
    with pytest.raises(ValueError, match=f"native.*not {xp.__name__}"):
        ulfd.ulfd_loss(xp.asarray(student), xp.asarray(teacher), implementation="native")


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_frameworks_with_an_adapter_are_shown_to_it(framework):
    pytest.importorskip(framework)
    array = np.ones(3, np.float32)
    if framework == "torch":
        import torch

        given = torch.from_numpy(array)
    else:
        import jax

        given = jax.numpy.asarray(array)
    with pytest.raises(TypeError, match=rf"ulfd_{framework}\.ulfd_loss"):
        ulfd.ulfd_loss(given, given)
