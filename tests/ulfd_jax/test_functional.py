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
from tests.oracle import Case, assert_close, exact, magnitudes, make_case
from tests.ulfd_jax.stand_in import STAND_IN
from ulfd.gradients import Gradients, vid_log_variance_derivative
from ulfd.kernels import registry
from ulfd_jax import functional, rules, ulfd_loss, value_and_grad

SHAPE = (3, 4, 5, 5)
SIGMAS = [SHAPE, (3, 1, 5, 5), (3, 1, 1, 1), (1, 4, 1, 1), (), None]


@pytest.fixture(params=["composite", "native", "stand-in"])
def kernel(request, monkeypatch):
    """The name of an implementation; "stand-in" is `composite` through all of `ulfd_jax.rules`."""
    monkeypatch.setattr(registry, "KERNELS", dict(registry.KERNELS))
    registry.register(
        registry.Kernel(
            "stand-in",
            priority=-1,
            refuses=lambda problem: "no elements" if problem.reduction == "none" else None,
        )
    )
    monkeypatch.setitem(functional.IMPLEMENTATIONS, "stand-in", lambda _: STAND_IN)
    return request.param


def arrays(case: Case, dtype="float32"):
    inputs = (case.student, case.teacher, case.log_variance)
    return [None if array is None else jnp.asarray(array, dtype) for array in inputs]


def single(array):
    return np.asarray(array).astype(np.float32).astype(np.float64)


def check(loss, gradients, case, upstream, **options):
    """The value and the gradients that were taken, against the float64 oracle."""
    value, oracle = exact(case, upstream, **options)
    size, magnitude = magnitudes(case, upstream, **options)
    assert_close(loss, value, size, summed=case.student.size)
    for name, gradient in zip(Gradients._fields, gradients, strict=True):
        if gradient is not None:
            expected = getattr(oracle, name)
            summed = case.student.size // expected.size
            assert_close(gradient, expected, getattr(magnitude, name), summed=summed)


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


def test_second_derivatives(kernel):
    """Of Σ exp(−σ)d² + 2σ: ∂²/∂ẑ² = 2w, ∂²/∂ẑ∂σ = −2wd, ∂²/∂σ² = wd²."""
    student, teacher, sigma = (jnp.asarray(x, jnp.float32) for x in ([2.0, 5.0], [1.0, 3.0], 0.5))
    loss = partial(ulfd_loss, reduction="sum", implementation=kernel)
    second = jax.jit(jax.hessian(loss, (0, 2)))(student, teacher, sigma)
    w, d = np.exp(-0.5), np.array([1.0, 2.0])
    np.testing.assert_allclose(second[0][0], np.diag([2 * w] * 2), rtol=1e-6)
    np.testing.assert_allclose(second[0][1], -2 * w * d, rtol=1e-6)
    np.testing.assert_allclose(second[1][1], (w * d * d).sum(), rtol=1e-6)

    def penalty(x):  # Σ (2wd)², whose gradient is 8w²d: never silently a constant's
        return jnp.sum(jax.grad(loss)(x, teacher, sigma) ** 2)

    np.testing.assert_allclose(jax.grad(penalty)(student), 8 * w * w * d, rtol=1e-6)

    def fused_penalty(x):
        gradients = value_and_grad(x, teacher, sigma, reduction="sum", implementation=kernel)[1]
        return jnp.sum(gradients.student**2)

    np.testing.assert_allclose(jax.grad(fused_penalty)(student), 8 * w * w * d, rtol=1e-6)

    def squared(x):  # the upstream gradient, 1 here, has a derivative too: g·gᵀ + H, with g = 2wd
        value = loss(x, teacher, sigma)
        return 0.5 * (value - jax.lax.stop_gradient(value - 1)) ** 2

    g = 2 * w * d
    by_hand = np.outer(g, g) + np.diag([2 * w] * 2)
    np.testing.assert_allclose(jax.jit(jax.hessian(squared))(student), by_hand, rtol=1e-6)


def test_forward_mode_is_composite_or_an_error(kernel):
    given = arrays(make_case(SHAPE, SHAPE, single))
    loss = partial(ulfd_loss, implementation=kernel)
    if kernel == "composite":
        _, tangent = jax.jvp(loss, given, [jnp.ones_like(x) for x in given])
        total = sum(jnp.sum(gradient) for gradient in jax.grad(loss, (0, 1, 2))(*given))
        np.testing.assert_allclose(tangent, total, rtol=1e-4, atol=1e-6)
    else:
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(loss, given, given)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_gradients_that_are_asked_for(kernel, monkeypatch, dtype):
    """Reverse mode learns which inputs are perturbed, also through jit and stop_gradient; it takes
    one pass, or recomputes where a saved gradient would be narrower than the arithmetic."""
    if kernel == "composite":
        pytest.skip("XLA removes what nobody uses")
    seen = []

    def recorded(name):
        original = getattr(rules, name)

        def run(call, needs, *arguments):
            seen.append((name, needs))
            return original(call, needs, *arguments)

        monkeypatch.setattr(rules, name, run)

    recorded("_gradients")
    recorded("value_and_gradients")
    given = arrays(make_case(SHAPE, SHAPE, single), dtype)
    loss = partial(ulfd_loss, implementation=kernel)
    jax.grad(jax.jit(lambda s, t, g: loss(s, jax.lax.stop_gradient(t), g)), (0, 1, 2))(*given)
    jax.jit(jax.grad(loss, 2))(*given)
    jax.grad(lambda weight: loss(*given, weight=weight))(1.0)
    used = "value_and_gradients" if (kernel, dtype) == ("native", "float32") else "_gradients"
    assert seen == [(used, (True, False, True)), (used, (False, False, True))]


def compiled(loss, *given):
    step = jax.jit(jax.value_and_grad(loss, (0, 2))).lower(*given).compile()
    return step, re.findall(r'custom_call_target="(\w+)"', step.as_text())


def test_one_pass_and_nothing_else_where_the_upstream_gradient_is_one():
    """Also with λ, and in a sum with other losses, as the cross entropy."""
    given = arrays(make_case(SHAPE, SHAPE, single))
    for loss in (
        partial(ulfd_loss, implementation="native"),
        lambda *a: 3.0 + 2.0 * jnp.sin(a[1][0, 0, 0, 0]) + ulfd_loss(*a, weight=0.1),
    ):
        step, calls = compiled(loss, *given)
        assert calls == ["ulfd_fused"]
        assert not re.search(r"f32\[3,4,5,5\]\S* (multiply|copy|fusion|select)\(", step.as_text())
        assert step.memory_analysis().temp_size_in_bytes < given[0].nbytes


@pytest.mark.parametrize("upstream", [0.37, -2.5, 0.0])
def test_another_upstream_gradient_scales_in_place(upstream):
    """Known while XLA compiles, or not; float32 as exactly as recomputing."""
    case = make_case((64, 33, 5, 5), (64, 33, 5, 5), single)
    given = arrays(case)
    step, calls = compiled(lambda *a: upstream * ulfd_loss(*a), *given)
    assert calls == ["ulfd_fused", "ulfd_scale"]
    assert step.memory_analysis().temp_size_in_bytes < given[0].nbytes
    traced = jax.jit(jax.value_and_grad(lambda *a: a[3] * ulfd_loss(*a[:3]), (0, 2)))
    _, oracle = exact(case, upstream)
    _, magnitude = magnitudes(case, upstream)
    for _, gradients in (step(*given), traced(*given, jnp.float32(upstream))):
        for name, gradient in zip(("student", "log_variance"), gradients, strict=True):
            assert_close(gradient, getattr(oracle, name), getattr(magnitude, name))


def test_a_gradient_that_float16_cannot_hold_is_recomputed():
    """1/n·2d of these is below float16's smallest number; a loss scale brings it back."""
    shape, scale = (64, 64, 32), 2.0**16
    student = jnp.full(shape, 0.5**10, jnp.float16)
    run = jax.jit(jax.grad(lambda s: scale * ulfd_loss(s, jnp.zeros_like(s), 0.0)))
    expected = scale * 2 * 0.5**10 / student.size
    np.testing.assert_allclose(run(student).astype(jnp.float32), expected, rtol=1e-3)


def test_mixed_precision_gives_each_gradient_its_own_dtype(kernel):
    student, teacher, sigma = arrays(make_case(SHAPE, (3, 1, 5, 5), single))
    half = student.astype(jnp.bfloat16), teacher.astype(jnp.float16), sigma
    run = jax.jit(partial(jax.value_and_grad(ulfd_loss, (0, 1, 2)), implementation=kernel))
    loss, gradients = run(*half)
    assert loss.dtype == jnp.float32
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float16, jnp.float32]
    exactly = jax.grad(ulfd_loss, (0, 1, 2))(*(x.astype(jnp.float32) for x in half))
    for rounded, gradient in zip(gradients, exactly, strict=True):
        unit = float(jnp.finfo(rounded.dtype).eps)
        np.testing.assert_allclose(rounded.astype(jnp.float32), gradient, rtol=unit, atol=1e-7)


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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_differentiated_may_alternate(kernel, dtype):
    """JAX remembers one structure of residuals for a compiled function, whatever it belongs to."""
    given = (*arrays(make_case(SHAPE, SHAPE, single), dtype), jnp.float32(0.3))
    loss, plain = (
        jax.jit(lambda *a, chosen=chosen: ulfd_loss(*a[:3], weight=a[3], implementation=chosen))
        for chosen in (kernel, "composite")
    )
    for positions in ((3,), (0,), (3,), (0, 1, 2, 3), (3,), (0, 2), (1,), (0,), (0, 2), (3,)):
        found = jax.grad(loss, positions)(*given)
        expected = jax.jit(jax.grad(plain, positions))(*given)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == theirs.dtype
            tolerance = 2.0**-7 if dtype == "bfloat16" else 1e-5
            np.testing.assert_allclose(
                np.asarray(ours, np.float64),
                np.asarray(theirs, np.float64),
                rtol=tolerance,
                atol=1e-7,
            )
            assert np.abs(np.asarray(theirs, np.float64)).max() > 1e-4
