"""The loss for JAX arrays: checks, the choice of a kernel, and the call."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import ArrayLike

from ulfd import checks, losses
from ulfd.gradients import Gradients, joined
from ulfd.kernels import registry
from ulfd.options import Likelihood, LossOptions, loss_options, named
from ulfd_jax import composite, derivatives, native, targets, triton
from ulfd_jax.composite import Array
from ulfd_jax.derivatives import Call, Implementation

IMPLEMENTATIONS: dict[str, Callable[[str], Implementation]] = {
    "triton": triton.implementation,
    "native": native.implementation,
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
    checks.check_unmasked(**{name: given})
    try:
        return jnp.asarray(given)
    except (TypeError, ValueError) as error:
        kind = type(given).__name__
        raise TypeError(f"ulfd_loss: {name} is a {kind}, but an array is needed.") from error


def _checked(
    student: ArrayLike,
    teacher: ArrayLike,
    log_variance: ArrayLike | None,
    options: LossOptions,
    implementation: str | None,
) -> tuple[tuple[Array, Array, Array | None], Call | None]:
    """The inputs as arrays, and the call of the kernels that serve them; None is composite."""
    features, clean = _array("student", student), _array("teacher", teacher)
    sigma: Array | None = None
    if isinstance(log_variance, int | float):
        sigma = jnp.full((), log_variance, composite.compute_dtype(features, clean))
    elif log_variance is not None:
        sigma = _array("log_variance", log_variance)
    inputs = (features, clean, sigma)
    arrays = [array for array in inputs if array is not None]
    shapes = tuple(array.shape for array in arrays)
    dtypes = tuple(array.dtype for array in arrays)
    symbolic = not all(isinstance(size, int) for size in features.shape)  # of jax.export
    choose = registry.chosen.__wrapped__ if symbolic else registry.chosen

    def chosen(target: targets.Target, name: str | None) -> str:
        return choose("jax", shapes, dtypes, (target.device,) * len(arrays), options, name)

    found = targets.targets()
    if implementation is not None:
        found = (targets.of(features),)
    elif symbolic or targets.may_be_partitioned(features):
        implementation = "composite"
    names = {target: chosen(target, implementation) for target in found}
    platforms = tuple(
        (target.platform, IMPLEMENTATIONS[name](target.architecture))
        for target, name in names.items()
        if name != "composite"
    )
    if not platforms:
        return inputs, None
    default = derivatives.COMPOSITE if implementation is None else None
    return inputs, Call(options, default, platforms)


def _options(**given: Any) -> LossOptions:
    """What is fixed while XLA compiles, checked. λ is no part of it."""
    for name, value in given.items():
        if any(isinstance(number, jax.core.Tracer) for number in jax.tree.leaves(value)):
            raise TypeError(
                f"ulfd_loss: {name} is traced, but is compiled in and must be known as a Python "
                f"number; close over it, or jax.jit(..., static_argnames={name!r}). Only weight "
                "may be traced."
            )
    return loss_options(**given)


# Compiled by themselves where nobody compiles around them; inside another jit they dissolve.
@partial(jax.jit, static_argnums=0, inline=True)
def _composite(options: LossOptions, weight: ArrayLike, *inputs: Any) -> Array:
    return composite.value(options, *inputs) * weight


@partial(jax.jit, static_argnums=0, inline=True)
def _kernel(call: Call, weight: ArrayLike, *inputs: Any) -> Array:
    factor = jnp.asarray(weight, composite.compute_dtype(*inputs))
    return derivatives.loss(call, *derivatives.aligned(factor, *inputs))


def _parts(
    inputs: tuple[Array, Array, Array | None], options: LossOptions, weight: ArrayLike
) -> Iterator[tuple[losses.Part, ArrayLike]]:
    """The losses that one with a γ is the sum of, and λ of each: σ's has none."""
    parts = losses.separated(*inputs, options, xp=jnp, stop_gradient=jax.lax.stop_gradient)
    return zip(parts, (weight, 1.0), strict=False)


def _loss(
    student: ArrayLike,
    teacher: ArrayLike,
    log_variance: ArrayLike | None,
    options: LossOptions,
    weight: ArrayLike,
    implementation: str | None,
) -> Array:
    """The loss by the kernel that serves it; one of two parts is that of each."""
    inputs, call = _checked(student, teacher, log_variance, options, implementation)
    if options.gamma is not None:
        parts = _parts(inputs, options, weight)
        total: Any = sum(_loss(*part, factor, implementation) for part, factor in parts)
        return total
    if call is None:
        return _composite(options, weight, *inputs)
    return _kernel(call, weight, *inputs)


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
    likelihood: Likelihood = "gaussian",
    gamma: float | None = None,
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
            for σ = 0: by default the mean squared error ("Ours w/o UEM").
        prior_weight: k, 2 with Jeffreys' prior (Eq. 9), 1 for the Gaussian likelihood.
        weight: λ of Eq. 10; may be traced, so that a schedule of λ compiles nothing anew.
        reduction: "mean" over all elements after broadcasting, "batchmean" (their sum divided by
            the number of samples), "sum" or "none". Inside shard_map these are the shard's; the
            global mean is `jax.lax.pmean` of them over equal shards.
        beta: β of the β-weighted likelihood (Seitzer et al. 2022); 0 is off.
        clamp: (low, high) limits of σ; no gradient where they act.
        likelihood: a name of `ulfd.losses.LIKELIHOODS` ("gaussian", ...), or a tuple of it and its
            parameters; `ulfd.FAMILY` has the k and λ that belong to each.
        gamma: γ of `ulfd.losses.separated`: the network gets the squared error under fixed weights
            exp(−γσ) of mean 1 (0: the MSE), and σ its likelihood; None is Eq. 9.
        implementation: a kernel's name ("composite", ...), or None for the best one that serves
            the inputs on the platform that the program runs on; under jit on several devices that
            is "composite", which XLA partitions, except inside shard_map. `jax.export` needs
            "composite", and so does forward mode (`jax.jvp`) on GPUs and in half precision.
    Returns:
        a scalar, or the features' shape for "none"; float32, or float64 for float64 inputs.
    Raises:
        ValueError: shapes, reduction, options or implementation do not fit.
        TypeError: an input is no floating-point array.
    """
    options = _options(
        prior_weight=prior_weight,
        reduction=reduction,
        beta=beta,
        clamp=clamp,
        likelihood=likelihood,
        gamma=gamma,
    )
    return _loss(student, teacher, log_variance, options, weight, implementation)


@partial(jax.jit, static_argnums=(0, 1), inline=True)
def _composite_with_gradients(
    options: LossOptions,
    teacher_gradient: bool,
    weight: ArrayLike,
    upstream: ArrayLike,
    *inputs: Array | None,
) -> tuple[Array | None, ...]:
    loss, pull = jax.vjp(lambda *now: _composite(options, weight, *now), *inputs)
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
    given = derivatives.aligned(arriving, *inputs)
    loss, *gradients = derivatives.value_and_gradients(call, needs, *given)
    return loss * factor, *map(derivatives.summed_like, gradients, inputs)


def _loss_and_gradients(
    student: Array,
    teacher: Array,
    log_variance: Array | None,
    options: LossOptions,
    weight: ArrayLike,
    upstream: ArrayLike,
    implementation: str | None,
    teacher_gradient: bool,
) -> tuple[Array, Gradients]:
    """Both by the kernel that serves the inputs, of a loss of one part."""
    inputs, call = _checked(student, teacher, log_variance, options, implementation)
    given = (teacher_gradient, weight, upstream, *inputs)
    if call is None:
        loss, *gradients = _composite_with_gradients(options, *given)
    else:
        loss, *gradients = _kernel_with_gradients(call, *given)
    return loss, Gradients(*gradients)


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
    likelihood: Likelihood = "gaussian",
    gamma: float | None = None,
    upstream: ArrayLike = 1.0,
    teacher_gradient: bool = True,
    implementation: str | None = None,
) -> tuple[Array, Gradients]:
    """The loss of `ulfd_loss` and its gradients together; one pass over memory where fused.

    `jax.grad` learns the upstream gradient only after the loss: float16 and bfloat16 features, and
    all on a GPU, are read twice. If you know it before (λ belongs in `weight`, a loss scale in
    `upstream`), this saves the second pass.

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
    options = _options(
        prior_weight=prior_weight,
        reduction=reduction,
        beta=beta,
        clamp=clamp,
        likelihood=likelihood,
        gamma=gamma,
    )
    inputs, _ = _checked(student, teacher, log_variance, options, implementation)
    shape = inputs[0].shape if reduction == "none" else ()
    checks.check_unmasked(upstream=upstream)
    checks.check_upstream(upstream, np.shape(upstream), shape)
    given = (upstream, implementation, teacher_gradient)
    if options.gamma is None:
        return _loss_and_gradients(*inputs, options, weight, *given)
    parts = _parts(inputs, options, weight)
    found = [_loss_and_gradients(*part, factor, *given) for part, factor in parts]
    total: Any = sum(loss for loss, _ in found)
    return total, joined([each for _, each in found])


def named_loss(name: str, *, weight: float = 1.0, **options: Any) -> Callable[..., Array]:
    """`ulfd_loss` with a member of `ulfd.FAMILY` filled in, under the weight λ.

    >>> import jax.numpy as jnp
    >>> loss = named_loss("gaussian_nll", weight=0.1)  # λ·½·(…)
    >>> float(loss(jnp.zeros(4), jnp.ones(4), jnp.zeros(4)))
    0.05000000074505806

    Args:
        name: of `ulfd.FAMILY`.
        weight: λ; it multiplies the member's own factor.
        options: the other arguments of `ulfd_loss`, as reduction="sum"; the member's likelihood
            may have other parameters, as ("student_t", 10.0).
    Returns:
        a function of student, teacher and log_variance, as `ulfd_loss`; raises ValueError where σ
        is given and the member has none, or the other way round.
    Raises:
        KeyError: there is no such member; the message lists them.
        TypeError: an option is the member's own.
    """
    return named(ulfd_loss, name, weight, options)


def vid_log_variance(raw: ArrayLike, *, epsilon: float = losses.VID_EPSILON) -> Array:
    """σ = log(softplus(a) + ε) of VID's learned per-channel variance (Ahn et al. 2019).

    Args:
        raw: a, shaped to broadcast to the features, as (1, C, 1, 1).
        epsilon: ε, the smallest variance.
    Returns:
        σ in the shape of `raw`, for `ulfd_loss(..., **ulfd.FAMILY["vid"].options)`.
    """
    return losses.vid_log_variance(jnp.asarray(raw), xp=jnp, epsilon=epsilon)
