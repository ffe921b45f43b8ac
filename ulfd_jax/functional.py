"""The loss for JAX arrays: checks, the choice of a kernel, and the call."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import numpy as jnp
from jax.typing import ArrayLike

from ulfd import checks, losses
from ulfd.gradients import Gradients
from ulfd.kernels import registry
from ulfd_jax import composite, native_calls, rules, targets, triton_calls
from ulfd_jax.composite import Array
from ulfd_jax.rules import Call, Implementation

IMPLEMENTATIONS: dict[str, Callable[[str], Implementation]] = {
    "triton": triton_calls.implementation,
    "native": native_calls.implementation,
}
"""What computes the loss beside `composite`, by the kernel's name in `ulfd.kernels.registry`: from
an architecture, as "sm_90", to its functions."""


def _array(name: str, given: Any) -> Array:
    module = type(given).__module__.split(".")[0]
    if module == "torch":
        raise TypeError(
            f"ulfd_jax.ulfd_loss computes with JAX but {name} is a torch tensor; use "
            "ulfd_torch.ulfd_loss, which takes the same arguments."
        )
    try:
        return jnp.asarray(given)
    except (TypeError, ValueError) as error:
        kind = type(given).__name__
        raise TypeError(f"ulfd_loss: {name} is a {kind}, but an array is needed.") from error


def _checked(
    student: ArrayLike,
    teacher: ArrayLike,
    log_variance: ArrayLike | None,
    options: dict[str, Any],
    implementation: str | None,
) -> tuple[tuple[Array, Array, Array | None], Call | None]:
    """The inputs as arrays, and the call of the kernels that serve them; None is composite."""
    student, teacher = _array("student", student), _array("teacher", teacher)
    inputs = {"student": student, "teacher": teacher}
    sigma = None
    if log_variance is not None:
        number = isinstance(log_variance, int | float)
        sigma = jnp.full((), log_variance, student.dtype) if number else None
        sigma = _array("log_variance", log_variance) if sigma is None else sigma
        inputs["log_variance"] = sigma
    shape = None if sigma is None else sigma.shape
    checks.check_dtypes(**{name: array.dtype for name, array in inputs.items()})
    checks.check_shapes(student.shape, teacher.shape, shape, options["reduction"])

    def selected(target: targets.Target, name: str | None) -> str:
        problem = registry.Problem(
            framework="jax",
            device=target.device,
            dtypes=tuple(checks.dtype_name(array.dtype) for array in inputs.values()),
            shape=student.shape,
            log_variance_shape=shape,
            reduction=options["reduction"],
        )
        return registry.select(problem, name)

    symbolic = not all(isinstance(size, int) for size in student.shape)  # of jax.export
    if implementation is None and (symbolic or targets.may_be_partitioned(student)):
        return (student, teacher, sigma), None
    if implementation is None:
        chosen = {target: selected(target, None) for target in targets.targets()}
    else:
        home = targets.of(student)
        chosen = {home: selected(home, implementation)}
    platforms = tuple(
        (target.platform, IMPLEMENTATIONS[name](target.architecture))
        for target, name in chosen.items()
        if name != "composite"
    )
    if not platforms:
        return (student, teacher, sigma), None
    constants = composite.Options(
        scale=1 / losses.denominator(student.shape, options["reduction"]),
        prior_weight=options["prior_weight"],
        beta=options["beta"],
        clamp=options["clamp"],
    )
    default = rules.COMPOSITE if implementation is None else None
    return (student, teacher, sigma), Call(constants, default, platforms)


def _options(
    prior_weight: float, reduction: str, beta: float, clamp: tuple[float, float] | None
) -> dict[str, Any]:
    """What is fixed while XLA compiles, checked and hashable."""
    for name, given in (("prior_weight", prior_weight), ("beta", beta), ("clamp", clamp)):
        if any(isinstance(number, jax.core.Tracer) for number in jax.tree.leaves(given)):
            raise TypeError(
                f"ulfd_loss: {name} is traced, but is compiled in and must be known as a Python "
                f"number; close over it, or jax.jit(..., static_argnames={name!r}). Only weight "
                "may be traced."
            )
    checks.check_options(reduction=reduction, beta=beta, clamp=clamp)
    return {
        "prior_weight": float(prior_weight),
        "reduction": reduction,
        "beta": float(beta),
        "clamp": None if clamp is None else tuple(map(float, clamp)),
    }


# Compiled by themselves where nobody compiles around them; inside another jit they dissolve.
_STATIC = ("prior_weight", "reduction", "beta", "clamp")


@partial(jax.jit, static_argnames=_STATIC, inline=True)
def _composite(*inputs: Any, **options: Any) -> Array:
    return composite.loss(*inputs, **options)


@partial(jax.jit, static_argnums=0, inline=True)
def _kernel(call: Call, weight: ArrayLike, *inputs: Any) -> Array:
    factor = jnp.asarray(weight, composite.compute_dtype(*inputs))
    return rules.loss(call, *rules.aligned(factor, *inputs))


def ulfd_loss(
    student: ArrayLike,
    teacher: ArrayLike,
    log_variance: ArrayLike | None = None,
    *,
    prior_weight: float = 2.0,
    weight: ArrayLike = 1.0,
    reduction: str = "mean",
    beta: float = 0.0,
    clamp: tuple[float, float] | None = None,
    implementation: str | None = None,
) -> Array:
    """λ · reduce(exp(−σ)·(z − ẑ)² + k·σ) (Eq. 9 of Yang et al. 2022).

    A function like any of `jax.numpy`: works under jit, grad, vmap, scan, checkpoint, shard_map
    and on sharded arrays. Gradients flow to every input; to keep the teacher from training, pass
    `jax.lax.stop_gradient(teacher)`.

    >>> import jax, jax.numpy as jnp
    >>> loss, gradient = jax.value_and_grad(ulfd_loss)(
    ...     jnp.zeros((2, 3)), jnp.ones((2, 3)), jnp.zeros((2, 1))
    ... )
    >>> float(loss), float(gradient[0, 0])
    (1.0, -0.3333333432674408)

    Args:
        student: ẑ, the degraded image's features, any shape, any floating dtype.
        teacher: z, the clean image's features, the same shape.
        log_variance: σ = log θ²; any shape that broadcasts to the features', one number, or None
            for the mean squared error ("Ours w/o UEM").
        prior_weight: k, 2 with Jeffreys' prior (Eq. 9), 1 for the Gaussian likelihood.
        weight: λ of Eq. 10; may be traced, so that a schedule of λ compiles nothing anew.
        reduction: "mean" over all elements after broadcasting, "batchmean" (their sum divided by
            the number of samples), "sum" or "none". Inside shard_map these are the shard's; the
            global mean is `jax.lax.pmean` of them over equal shards.
        beta: β of the β-weighted likelihood (Seitzer et al. 2022); 0 is off.
        clamp: (low, high) limits of σ; no gradient where they act.
        implementation: a kernel's name ("composite", ...), or None for the best one that serves
            the inputs on the platform that the program runs on; under jit on several devices that
            is "composite", which XLA partitions, except inside shard_map. Forward-mode
            differentiation (`jax.jvp`) and `jax.export` need "composite".
    Returns:
        a scalar, or the features' shape for "none"; float32, or float64 for float64 inputs.
    Raises:
        ValueError: shapes, reduction, options or implementation do not fit.
        TypeError: an input is no floating-point array.
    """
    options = _options(prior_weight, reduction, beta, clamp)
    inputs, call = _checked(student, teacher, log_variance, options, implementation)
    if call is None:
        return _composite(*inputs, weight=weight, **options)
    return _kernel(call, weight, *inputs)


@partial(jax.jit, static_argnames=("teacher_gradient", *_STATIC), inline=True)
def _composite_with_gradients(
    weight: ArrayLike,
    upstream: ArrayLike,
    *inputs: Array | None,
    teacher_gradient: bool,
    **options: Any,
) -> tuple[Array | None, ...]:
    loss, pull = jax.vjp(lambda *now: composite.loss(*now, weight=weight, **options), *inputs)
    arriving = jnp.broadcast_to(jnp.asarray(upstream, loss.dtype), loss.shape)
    by_student, by_teacher, by_sigma = pull(arriving)
    return loss, by_student, by_teacher if teacher_gradient else None, by_sigma


@partial(jax.jit, static_argnums=(0, 1), inline=True)
def _kernel_with_gradients(
    call: Call, teacher_gradient: bool, weight: ArrayLike, upstream: ArrayLike, *inputs: Any
) -> tuple[Array | None, ...]:
    needs = (True, teacher_gradient, inputs[2] is not None)
    dtype = composite.compute_dtype(*inputs)
    factor = jnp.asarray(weight, dtype)
    arriving = jnp.asarray(upstream, dtype) * factor
    loss, *gradients = rules.value_and_gradients(call, needs, *rules.aligned(arriving, *inputs))
    return loss * factor, *map(rules.summed_like, gradients, inputs)


def value_and_grad(
    student: ArrayLike,
    teacher: ArrayLike,
    log_variance: ArrayLike | None = None,
    *,
    prior_weight: float = 2.0,
    weight: ArrayLike = 1.0,
    reduction: str = "mean",
    beta: float = 0.0,
    clamp: tuple[float, float] | None = None,
    upstream: ArrayLike = 1.0,
    teacher_gradient: bool = True,
    implementation: str | None = None,
) -> tuple[Array, Gradients]:
    """The loss of `ulfd_loss` and its gradients together; one pass over memory where fused.

    `jax.grad` learns the upstream gradient only after the loss: float16 and bfloat16 features, and
    all on a GPU, are read twice. Who knows it beforehand (λ belongs in `weight`, a loss scale in
    `upstream`) saves that pass.

    >>> import jax.numpy as jnp
    >>> loss, gradients = value_and_grad(jnp.zeros(4), jnp.ones(4), jnp.zeros(4))
    >>> gradients.student.tolist()
    [-0.5, -0.5, -0.5, -0.5]

    Args:
        upstream: the gradient arriving at the loss: a number, or an array in the loss's shape.
        teacher_gradient: False spares the teacher's gradient, which is then None.
        others: as in `ulfd_loss`.
    Returns:
        (loss, Gradients(student, teacher, log_variance)), each gradient in its input's shape and
        dtype; log_variance's is None where σ was. Differentiable like any other function.
    Raises:
        ValueError, TypeError: as `ulfd_loss`; or upstream has another shape.
    """
    options = _options(prior_weight, reduction, beta, clamp)
    inputs, call = _checked(student, teacher, log_variance, options, implementation)
    shape = inputs[0].shape if reduction == "none" else ()
    if not isinstance(upstream, int | float) and jnp.shape(upstream) != shape:
        raise ValueError(
            f"value_and_grad: upstream has shape {jnp.shape(upstream)}, but the loss {shape}; "
            "they must be equal."
        )
    if call is None:
        results = _composite_with_gradients(
            weight, upstream, *inputs, teacher_gradient=teacher_gradient, **options
        )
    else:
        results = _kernel_with_gradients(call, teacher_gradient, weight, upstream, *inputs)
    return results[0], Gradients(*results[1:])


def vid_log_variance(raw: ArrayLike, *, epsilon: float = losses.VID_EPSILON) -> Array:
    """σ = log(softplus(a) + ε) of VID's learned per-channel variance (Ahn et al. 2019).

    Args:
        raw: a, shaped to broadcast to the features, as (1, C, 1, 1).
        epsilon: ε, the smallest variance.
    Returns:
        σ in the shape of `raw`, for `ulfd_loss(..., **ulfd.FAMILY["vid"].options)`.
    """
    return losses.vid_log_variance(jnp.asarray(raw), xp=jnp, epsilon=epsilon)
