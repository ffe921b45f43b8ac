"""Derivatives of the loss in JAX: which are taken, in how many passes, how exactly, how often."""

import re
from functools import partial

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from tests.oracle import expected, make_case
from tests.ulfd_jax.cases import SHAPE, arrays, single
from ulfd_jax import derivatives, ulfd_loss, value_and_grad


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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_forward_mode_is_exact_or_an_error(kernel, dtype):
    """Where gradients are saved, or plain: jvp, linearize, jacfwd, forward over reverse."""
    given = tuple(arrays(make_case(SHAPE, SHAPE, single), dtype))
    loss = partial(ulfd_loss, implementation=kernel)
    tangents = tuple(jnp.full_like(x, k) for x, k in zip(given, (1.0, -2.0, 0.5), strict=True))
    if kernel not in ("composite", "native") or (kernel, dtype) == ("native", "bfloat16"):
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(loss, given, tangents)
        return
    exact = partial(jax.grad(partial(ulfd_loss, implementation="composite"), (0, 1, 2)))
    tolerance = {"rtol": 1e-4 if dtype == "float32" else 2.0**-6, "atol": 1e-6}
    expected = sum(jnp.vdot(g, t) for g, t in zip(exact(*given), tangents, strict=True))
    value, tangent = jax.jit(partial(jax.jvp, loss))(given, tangents)
    np.testing.assert_allclose(value, loss(*given), rtol=1e-6)
    np.testing.assert_allclose(tangent, expected, **tolerance)
    np.testing.assert_allclose(jax.linearize(loss, *given)[1](*tangents), expected, **tolerance)
    if dtype == "bfloat16":
        return
    np.testing.assert_allclose(jax.jacfwd(loss)(*given), exact(*given)[0], **tolerance)
    for ours, theirs in zip(
        *(jax.jvp(f, given, tangents)[1] for f in (jax.grad(loss, (0, 1, 2)), exact)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, **tolerance)
    one = jax.jvp(lambda weight: loss(*given, weight=weight), (0.3,), (2.0,))[1]
    np.testing.assert_allclose(one, 2 * loss(*given), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_gradients_that_are_asked_for(kernel, monkeypatch, dtype):
    """Reverse mode learns which inputs are perturbed, also through jit and stop_gradient; it takes
    one pass, or recomputes where a saved gradient would be narrower than the arithmetic."""
    if kernel == "composite":
        pytest.skip("XLA removes what nobody uses")
    seen = []

    def recorded(name):
        original = getattr(derivatives, name)

        def run(call, needs, *arguments):
            seen.append((name, needs))
            return original(call, needs, *arguments)

        monkeypatch.setattr(derivatives, name, run)

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
def test_another_upstream_gradient_scales_what_was_saved(upstream):
    """Known while XLA compiles, or not; float32 as exactly as recomputing."""
    case = make_case((64, 33, 5, 5), (64, 33, 5, 5), single)
    given = arrays(case)
    step, calls = compiled(lambda *a: upstream * ulfd_loss(*a), *given)
    assert calls == ["ulfd_fused"]
    assert step.memory_analysis().temp_size_in_bytes < 1.1 * given[0].nbytes
    traced = jax.jit(jax.value_and_grad(lambda *a: a[3] * ulfd_loss(*a[:3]), (0, 2)))
    reference = expected(case, upstream)
    for _, (by_student, by_sigma) in (step(*given), traced(*given, jnp.float32(upstream))):
        assert not reference.errors((None, by_student, None, by_sigma))


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
