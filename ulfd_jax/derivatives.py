"""What makes a kernel a citizen of JAX: its derivatives, its vmap, its place in shard_map.

A kernel computes a scalar and its gradients on one device. Here it becomes a function that

- differentiates, in one of two ways (below), and writes only the gradients that are asked for.
  Everything beyond the first derivative (hessian, gradient penalties) goes through `composite`;
- batches: vmap of a kernel is vmap of `composite`, which needs no kernel for one more axis;
- runs where the program ends up: `lax.platform_dependent` picks the kernel while XLA compiles;
- says in shard_map that its results vary over the axes over which its inputs do.

How many words an element costs under reverse mode, for a full σ. `_saving` has a custom_jvp: the
value and the gradients are computed together under upstream λ, 5 words, and the derivative is the
sum of gradient · tangent, which JAX runs forwards (`jax.jvp`) or transposes to upstream · gradient.
Under `jit(value_and_grad(loss))`, and in any sum of losses, upstream is the constant 1, for which
XLA removes the product; another number costs 4 words more.

`_recomputing` has a custom_vjp: the backward pass computes the gradients from the inputs, 3 + 5
words. The kernels on GPUs take it, and all where an input is narrower than the arithmetic: a
gradient that is rounded before the loss scale reaches it falls out of float16's range. A custom_vjp
excludes forward mode, which raises; `implementation="composite"` has it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from ulfd.options import LossOptions
from ulfd_jax import composite
from ulfd_jax.composite import Array, Needs


class Implementation(NamedTuple):
    """One kernel: the functions of `ulfd_jax.composite`, computed by it.

    Args:
        saves: whether reverse mode had better keep the gradients than recompute; see above.
    """

    value: Callable[..., Array]
    gradients: Callable[..., tuple[Array | None, ...]]
    value_and_gradients: Callable[..., tuple[Array | None, ...]]
    saves: bool = False


COMPOSITE = Implementation(
    composite.value, composite.gradients, composite.value_and_gradients, saves=True
)


@dataclass(frozen=True)
class Call:
    """All of a call that is no array.

    Args:
        options: of the loss.
        default: what computes it on a platform that `platforms` does not name; None raises there.
        platforms: (platform, implementation), as ("cuda", ...).
    """

    options: LossOptions
    default: Implementation | None
    platforms: tuple[tuple[str, Implementation], ...]


def _varying(*arrays: Array | None) -> frozenset[str]:
    """The axes of a surrounding shard_map over which any of the arrays varies."""
    kinds = (jax.typeof(array) for array in arrays if array is not None)
    return frozenset().union(*(kind.manual_axis_type.varying for kind in kinds))


def _cast(array: Array | None, axes: frozenset[str]) -> Array | None:
    missing = frozenset() if array is None else axes - _varying(array)
    return jax.lax.pcast(array, tuple(missing), to="varying") if missing else array


def aligned(*arrays: Array | None) -> tuple[Any, ...]:
    """The arrays, all varying over the same axes. The gradient of one that did not is then the sum
    over the shards, as in plain JAX."""
    axes = _varying(*arrays)
    return tuple(_cast(array, axes) for array in arrays)


def summed_like(gradient: Array | None, array: Array | None) -> Array | None:
    """The gradient of an array that `aligned` cast, summed over the shards that share the array."""
    if gradient is None or array is None:
        return gradient
    shared = _varying(gradient) - _varying(array)
    return jax.lax.psum(gradient, tuple(shared)) if shared else gradient


def _dispatched(call: Call, function: str, *static: Any) -> Callable[..., Any]:
    """`function` of the kernel that serves the platform, with vmap's rule."""

    def of(implementation: Implementation) -> Callable[..., Any]:
        computed = partial(getattr(implementation, function), call.options, *static)

        def run(*arrays: Any) -> Any:
            axes = _varying(*arrays)
            return jax.tree.map(lambda result: _cast(result, axes), computed(*arrays))

        return run

    @custom_vmap
    def fast(*arrays: Any) -> Any:
        return jax.lax.platform_dependent(
            *arrays,
            default=call.default and of(call.default),
            **{platform: of(chosen) for platform, chosen in call.platforms},
        )

    @fast.def_vmap
    def batched(axis_size: int, in_batched: Any, *arrays: Any) -> Any:
        axes = jax.tree.map(lambda along: 0 if along else None, list(in_batched))
        out = jax.vmap(of(COMPOSITE), axes, axis_size=axis_size)(*arrays)
        return out, jax.tree.map(lambda _: True, out)

    return fast


def _through_composite(function: str, static: int) -> Callable[..., Any]:
    """`function` of a call's kernel, whose derivatives are those of `composite`."""

    @partial(jax.custom_jvp, nondiff_argnums=tuple(range(1 + static)))
    def run(call: Call, *arguments: Any) -> Any:
        return _dispatched(call, function, *arguments[:static])(*arguments[static:])

    @run.defjvp
    def derivative(call: Call, *arguments: Any) -> Any:
        *chosen, primals, tangents = arguments
        plain = partial(getattr(COMPOSITE, function), call.options, *chosen)
        _, tangents_out = jax.jvp(plain, primals, tangents)
        return run(call, *chosen, *primals), tangents_out

    return run


_value = _through_composite("value", 0)
_gradients = _through_composite("gradients", 1)
value_and_gradients: Callable[..., tuple[Any, ...]] = _through_composite("value_and_gradients", 1)
"""(call, needs, upstream, student, teacher, σ) to (value, by student, by teacher, by σ)."""


def _saves(call: Call, inputs: tuple[Array | None, ...]) -> bool:
    """Whether the gradients are computed with the value; see the module's docstring."""
    exact = composite.compute_dtype(*inputs)
    served = [implementation for _, implementation in (("", call.default), *call.platforms)]
    return all(array.dtype == exact for array in inputs if array is not None) and all(
        implementation.saves for implementation in served if implementation
    )


def loss(
    call: Call, weight: Array, student: Array, teacher: Array, log_variance: Array | None
) -> Array:
    """The scalar loss, λ (`weight`, in the loss's dtype) times the value of the call's kernel."""
    inputs = (student, teacher, log_variance)
    chosen = _saving if _saves(call, inputs) else _recomputing
    return chosen(call, weight, *inputs)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _saving(call: Call, weight: Array, *inputs: Array | None) -> Array:
    return weight * _value(call, *inputs)


@partial(_saving.defjvp, symbolic_zeros=True)
def _saving_derivative(call: Call, primals: Any, tangents: Any) -> tuple[Array, Array]:
    """Σ gradient · tangent: JAX runs it forwards, or transposes it to upstream · gradient."""
    weight, *inputs = primals
    by_weight, *others = (
        None if isinstance(tangent, SymbolicZero) else tangent for tangent in tangents
    )
    needs = tuple(tangent is not None for tangent in others)
    if any(needs):
        value, *gradients = value_and_gradients(call, needs, weight, *inputs)
    else:
        value, gradients = _value(call, *inputs), [None, None, None]
    terms = [jnp.sum(g * t) for g, t in zip(gradients, others, strict=True) if g is not None]
    if by_weight is not None:
        terms.append(by_weight * value)
    result = weight * value
    return result, sum(terms[1:], terms[0])  # JAX asks where something is perturbed


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recomputing(
    call: Call, weight: Array, student: Array, teacher: Array, log_variance: Array | None
) -> Array:
    return weight * _value(call, student, teacher, log_variance)


# JAX traces the forward rule once for each set of inputs that are differentiated, but remembers the
# structure of its residuals from the newest trace alone (0.10.2): a set that comes again after
# another one meets the other's. So the structure is the same for all, and what differs between them
# is told by an empty array's shape.
def _marked(needs: Needs) -> Array:
    """Which gradients are wanted, as a shape."""
    return jnp.zeros((0, 1 + sum(need << place for place, need in enumerate(needs))))


def _needs_of(mark: Array) -> Needs:
    """What `_marked` was told."""
    bits = mark.shape[-1] - 1
    return bool(bits & 1), bool(bits & 2), bool(bits & 4)


def _forward(call: Call, *primals: CustomVJPPrimal | None) -> tuple[Array, Any]:
    weight, *inputs = (None if primal is None else primal.value for primal in primals)
    first, second, third = (primal is not None and bool(primal.perturbed) for primal in primals[1:])
    value = _value(call, *inputs)
    return weight * value, (_marked((first, second, third)), value, (weight, *inputs))


def _backward(call: Call, residuals: Any, upstream: Array | SymbolicZero) -> tuple[Any, ...]:
    mark, value, (weight, *inputs) = residuals
    needs = _needs_of(mark)
    if isinstance(upstream, SymbolicZero):
        upstream = jnp.zeros(upstream.shape, upstream.dtype)
    by_weight = upstream * value
    if not any(needs):
        return by_weight, None, None, None
    return by_weight, *_gradients(call, needs, upstream * weight, *inputs)


_recomputing.defvjp(_forward, _backward, symbolic_zeros=True)
