"""What JAX adds to the loss: its transformations, whole-program compilation, its errors."""

import os
import re
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import ulfd_jax
import ulfd_torch
from tests.oracle import exact, make_case
from tests.ulfd_jax.cases import SHAPE, arrays, check, single
from ulfd.gradients import vid_log_variance_derivative
from ulfd.kernels import registry
from ulfd_jax import ulfd_loss, value_and_grad

SIGMAS = [SHAPE, (3, 1, 5, 5), (3, 1, 1, 1), (1, 4, 1, 1), (), None]


@pytest.mark.parametrize("sigma", SIGMAS)
def test_compiled_as_one_program(kernel, sigma):
    """value_and_grad and the gradients by autodiff, in one jit, on features (B, C, H, W)."""
    options = {"weight": 0.1, "beta": 0.5, "clamp": (-2.0, 0.5)}
    case = make_case(SHAPE, sigma, single)
    given = arrays(case)
    argnums = (0, 1) if sigma is None else (0, 1, 2)

    @jax.jit
    def run(*inputs):
        fixed = {**options, "implementation": kernel}
        loss = partial(ulfd_loss, **fixed)
        return (
            jax.value_and_grad(lambda *a: 0.375 * loss(*a), argnums)(*inputs),
            value_and_grad(*inputs, upstream=0.375, **fixed),
        )

    (loss, gradients), (value, fused) = run(*given)
    check(loss / 0.375, (*gradients, None)[:3], case, 0.375, **options)
    check(value, fused, case, 0.375, **options)


def test_none_keeps_every_element():
    case = make_case(SHAPE, (3, 1, 5, 5), single)
    upstream = single(np.random.default_rng(1).normal(size=SHAPE))
    given = arrays(case)
    loss, gradients = value_and_grad(*given, reduction="none", upstream=upstream)
    value, oracle = exact(case, upstream, reduction="none")
    np.testing.assert_allclose(loss, value, rtol=1e-5)
    np.testing.assert_allclose(gradients.student, oracle.student, rtol=1e-5)
    assert loss.shape == SHAPE


def test_the_weight_may_be_traced(kernel):
    """A schedule of λ compiles once; and λ's own gradient is the loss."""
    case = make_case(SHAPE, (3, 1, 5, 5), single)
    traced = 0

    @jax.jit
    def run(weight, *inputs):
        nonlocal traced
        traced += 1
        by_weight = jax.grad(lambda w: ulfd_loss(*inputs, weight=w, implementation=kernel))(weight)
        return ulfd_loss(*inputs, weight=weight, implementation=kernel), by_weight

    for weight in (0.5, 0.25):
        loss, slope = run(jnp.float32(weight), *arrays(case))
        check(loss, (None,) * 3, case, 1.0, weight=weight)
        assert loss == weight * slope
    assert traced == 1


def test_vmap_mixes_axes(kernel):
    case = make_case(SHAPE, (3, 1, 5, 5), single)
    student, teacher, sigma = arrays(case)
    run = partial(jax.grad(ulfd_loss, (0, 1, 2)), implementation=kernel)
    shared = jax.jit(jax.vmap(run, in_axes=(0, None, 2)))
    together = shared(student, teacher[0], jnp.moveaxis(sigma, 0, 2))
    for index in range(SHAPE[0]):
        alone = run(student[index], teacher[0], sigma[index])
        for one, all_ in zip(alone, together, strict=True):
            np.testing.assert_allclose(all_[index], one, rtol=1e-5, atol=1e-9)


def test_scan_and_checkpoint(kernel):
    case = make_case(SHAPE, (3, 1, 5, 5), single)
    loss = partial(ulfd_loss, implementation=kernel)

    def scanned(*inputs):
        def body(total, now):
            return total + jax.checkpoint(loss)(*now), None

        return jax.lax.scan(body, jnp.float32(0), inputs)[0] / SHAPE[0]

    value, gradients = jax.jit(jax.value_and_grad(scanned, (0, 1, 2)))(*arrays(case))
    check(value, gradients, case, 1.0)


def test_exported_with_any_batch_size():
    batch = jax.export.symbolic_shape("batch")[0]
    shapes = [(batch, *SHAPE[1:]), (batch, *SHAPE[1:]), (batch, 1, 5, 5)]
    step = jax.jit(jax.value_and_grad(ulfd_loss))
    exported = jax.export.export(step)(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
    for batch in (2, 3):
        case = make_case((batch, *SHAPE[1:]), (batch, 1, 5, 5), single)
        loss, gradient = exported.call(*arrays(case))
        check(loss, (gradient, None, None), case, 1.0)


@pytest.mark.parametrize("platform", ["tpu", "cuda", "rocm"])
def test_the_composite_form_lowers_for_every_platform(platform):
    shapes = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in (SHAPE, SHAPE, (3, 1, 5, 5))]
    for sharing in ((platform,), ("cpu", platform)):
        step = jax.jit(jax.value_and_grad(partial(ulfd_loss, implementation="composite")))
        exported = jax.export.export(step, platforms=sharing)(*shapes)
        assert exported.platforms == sharing
        assert "custom_call" not in exported.mlir_module()


def test_numbers_numpy_and_hostile_values(kernel):
    nan, inf = np.nan, np.inf
    student = np.array([1.0, nan, inf, 1.0, 1.0, -inf], np.float32)
    teacher = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], np.float32)
    sigma = np.array([0.0, 0.0, 0.0, inf, nan, 0.0], np.float32)
    for options in ({}, {"clamp": (-2.0, 2.0)}, {"beta": 0.5}):
        tensors = [torch.tensor(x, requires_grad=True) for x in (student, teacher, sigma)]
        same = "native" if kernel == "native" else "composite"
        theirs = ulfd_torch.ulfd_loss(*tensors, reduction="sum", implementation=same, **options)
        theirs.backward()
        loss, gradients = jax.value_and_grad(ulfd_loss, (0, 1, 2))(
            student, teacher, sigma, reduction="sum", implementation=kernel, **options
        )
        np.testing.assert_array_equal(loss, theirs.item())
        for ours, tensor in zip(gradients, tensors, strict=True):
            np.testing.assert_allclose(ours, tensor.grad.numpy(), rtol=1e-6)
    assert ulfd_loss(student[:1], teacher[:1], 0.0, implementation=kernel) == 1.0
    assert ulfd_loss(student[0], teacher[0], 0, implementation=kernel) == 1.0


@pytest.fixture
def no_promotion():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.mark.usefixtures("no_promotion")
@pytest.mark.parametrize("sigma", [(4, 1, 1), (5,), (), (1, 4, 1, 1)])
def test_axes_are_added_by_hand(kernel, sigma):
    """Who has forbidden JAX to add them by itself has a σ of fewer axes all the same."""
    case = make_case(SHAPE, sigma, single)
    given = arrays(case)
    loss = partial(ulfd_loss, implementation=kernel, beta=0.5, clamp=(-2.0, 2.0))
    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*given)
    check(value, gradients, case, 1.0, beta=0.5, clamp=(-2.0, 2.0))
    assert value_and_grad(*given, implementation=kernel)[1].log_variance.shape == sigma


@pytest.mark.usefixtures("no_promotion")
@pytest.mark.parametrize(
    "options", [{"normalization": "batch", "blocks": 1}, {"structure": "pointwise"}]
)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_uem_adds_axes_by_hand(options, layout):
    spec = ulfd_jax.UEMSpec.official(4, **options)
    params, state = ulfd_jax.uem.init(jax.random.key(0), spec), ulfd_jax.uem.init_state(spec)
    features = jnp.ones(SHAPE if layout == "NCHW" else (3, 5, 5, 4))
    found = ulfd_jax.uem.apply(params, features, spec=spec, state=state, layout=layout)
    assert found.shape == features.shape
    trained, _ = ulfd_jax.uem.train(params, state, features, spec=spec, layout=layout)
    assert trained.shape == features.shape


def test_a_number_keeps_its_digits(kernel):
    ones, zeros = np.ones(3, np.float16), np.zeros(3, np.float16)
    assert float(ulfd_loss(ones, zeros, 1e5, implementation=kernel)) == pytest.approx(2e5)
    found = ulfd_loss(jnp.ones(3, "bfloat16"), zeros, 9.99, implementation=kernel)
    assert float(found) == pytest.approx(np.exp(-9.99) + 2 * 9.99, rel=1e-6)


def test_an_empty_batch(kernel):
    empty, sigma = jnp.zeros((0, 3)), jnp.zeros((1, 3))
    loss, gradients = jax.value_and_grad(ulfd_loss, (0, 2))(
        empty, empty, sigma, reduction="sum", implementation=kernel
    )
    assert loss == 0
    assert gradients[0].shape == (0, 3)
    assert not gradients[1].any()


ones = np.ones((2, 3), np.float32)
WRONG = [
    ((ones, np.ones((2, 4), np.float32)), {}),
    ((ones, ones, np.ones((3, 1), np.float32)), {}),
    ((ones, ones), {"reduction": "average"}),
    ((ones[:0], ones[:0]), {}),
    ((ones[0, 0], ones[0, 0]), {"reduction": "batchmean"}),
    ((ones.astype(np.int32), ones), {}),
    ((ones, ones, ones.astype(np.complex64)), {}),
    ((ones, ones, ones), {"beta": -1.0}),
    ((ones, ones, ones), {"clamp": (1.0, -1.0)}),
    ((ones, ones, ones), {"clamp": 10}),
    ((ones, ones), {"implementation": "fastest"}),
    ((ones, ones), {"upstream": np.ones(2, np.float32)}),
]


@pytest.mark.parametrize(("given", "options"), WRONG)
def test_errors_are_torchs(given, options):
    function = "value_and_grad" if "upstream" in options else "ulfd_loss"
    others = {
        name: torch.as_tensor(x) if isinstance(x, np.ndarray) else x for name, x in options.items()
    }
    with pytest.raises((ValueError, TypeError)) as theirs:
        getattr(ulfd_torch, function)(*map(torch.as_tensor, given), **others)
    with pytest.raises((ValueError, TypeError)) as ours:
        getattr(ulfd_jax, function)(*given, **options)
    assert (type(ours.value), str(ours.value)) == (type(theirs.value), str(theirs.value))


def test_a_torch_tensor_is_sent_to_torch():
    with pytest.raises(TypeError, match=r"student is a torch tensor; use ulfd_torch\.ulfd_loss"):
        ulfd_loss(torch.ones(2), torch.ones(2))


@pytest.mark.parametrize("teacher", [None, {"feature": ones}, "z"])
def test_no_array(teacher):
    kind = type(teacher).__name__
    with pytest.raises(TypeError, match=f"teacher is a {kind}, but an array is needed"):
        ulfd_loss(ones, teacher)


@pytest.mark.parametrize("option", [{"beta": 0.5}, {"prior_weight": 1.0}, {"clamp": (-1.0, 1.0)}])
def test_what_is_compiled_in_may_not_be_traced(option):
    (name,) = option
    with pytest.raises(
        TypeError, match=f"{name} is traced.*close over it.*static_argnames='{name}"
    ):
        jax.jit(ulfd_loss)(ones, ones, ones, **option)
    jax.jit(ulfd_loss, static_argnames=name)(ones, ones, ones, **option, weight=0.1)


def test_float64_where_jax_has_it():
    with jax.enable_x64(True):
        case = make_case(SHAPE, (3, 1, 5, 5), lambda x: x)
        loss, gradients = value_and_grad(*arrays(case, "float64"), weight=0.1)
        value, oracle = exact(case, weight=0.1)
        assert loss.dtype == jnp.float64
        np.testing.assert_allclose(loss, value, rtol=1e-14)
        np.testing.assert_allclose(gradients.student, oracle.student, rtol=1e-12)


def test_vid_variance_has_the_closed_forms_gradient():
    raw = np.linspace(-20, 20, 41)  # 0 is among them
    with jax.enable_x64(True):
        gradient = jax.grad(lambda a: ulfd_jax.vid_log_variance(a).sum())(jnp.asarray(raw))
    np.testing.assert_allclose(gradient, vid_log_variance_derivative(raw), rtol=1e-9)


def test_sharded_over_two_and_four_devices():
    """In a process of its own: the number of devices is settled when JAX starts."""
    command = [sys.executable, "-m", "tests.ulfd_jax.sharded"]
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def test_the_documentations_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(ulfd_jax.__file__).parent / "README.md").read_text(encoding="utf-8")
    first, saving, lowering = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict = {}
    exec(first, names)
    assert np.isfinite(names["values"]).all()
    assert names["values"][-1] < names["values"][0]
    exec(saving, names)
    if registry.refusals(registry.Problem("jax", "cuda", ("float32",) * 2, (1,), None))["triton"]:
        pytest.skip("the last block needs jax-triton")
    if find_spec("jax_cuda13_plugin"):
        exec(lowering, names)
        assert "triton_kernel_call" in names["program"].as_text()
