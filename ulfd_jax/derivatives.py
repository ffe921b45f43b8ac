"""What makes a kernel a citizen of JAX: its derivatives, its vmap, its place in shard_map.

A kernel computes a scalar and its gradients on one device. Here it becomes a function that

- differentiates: `loss` has a custom_vjp that writes only the gradients that are asked for, in one
  of two ways (below). Everything beyond the first reverse pass (hessian, gradient penalties) goes
  through `composite`;
- batches: vmap of a kernel is vmap of `composite`, which needs no kernel for one more axis;
- runs where the program ends up: `lax.platform_dependent` picks the kernel while XLA compiles;
- says in shard_map that its results vary over the axes over which its inputs do.

Forward mode (`jax.jvp`) as the first derivative is what custom_vjp excludes: it raises, and
`implementation="composite"` has it.

How many words an element costs under reverse mode, for a full σ. A kernel that can scale in place
computes the value and the gradients together under upstream λ, 5 words, and the backward pass
scales them by what arrives. Under `jit(value_and_grad(loss))`, and in any sum of losses, that is
the constant 1, for which XLA removes the scaling; another number costs 4 words more. Other kernels
recompute from the inputs in the backward pass, 3 + 5 words. So do all where an input is narrower
than the arithmetic: a gradient that is rounded before the loss scale reaches it falls out of
float16's range.
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
        scaled: None where reverse mode had better recompute; see above.
    """

    value: Callable[..., Array]
    gradients: Callable[..., tuple[Array | None, ...]]
    value_and_gradients: Callable[..., tuple[Array | None, ...]]
    scaled: Callable[..., tuple[Array | None, ...]] | None = None


COMPOSITE = Implementation(
    composite.value, composite.gradients, composite.value_and_gradients, composite.scaled
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
_scaled = _through_composite("scaled", 0)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def loss(
    call: Call, weight: Array, student: Array, teacher: Array, log_variance: Array | None
) -> Array:
    """The scalar loss, λ (`weight`, in the loss's dtype) times the value of the call's kernel."""
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


def _saves(call: Call, inputs: tuple[Array | None, ...]) -> bool:
    """Whether the gradients are computed with the value; see the module's docstring."""
    exact = composite.compute_dtype(*inputs)
    served = [implementation for _, implementation in (("", call.default), *call.platforms)]
    return all(array.dtype == exact for array in inputs if array is not None) and all(
        implementation.scaled for implementation in served if implementation
    )


def _forward(call: Call, *primals: CustomVJPPrimal | None) -> tuple[Array, Any]:
    weight, *inputs = (None if primal is None else primal.value for primal in primals)
    first, second, third = (primal is not None and bool(primal.perturbed) for primal in primals[1:])
    needs = (first, second, third)
    if not _saves(call, tuple(inputs)):
        value = _value(call, *inputs)
        return weight * value, (_marked(needs), value, (weight, *inputs))
    if any(needs):
        value, *gradients = value_and_gradients(call, needs, weight, *inputs)
    else:
        value, gradients = _value(call, *inputs), [None, None, None]
    kept = [jnp.zeros(0) if gradient is None else gradient for gradient in gradients]
    return weight * value, (_marked(needs), value, kept)


def _backward(call: Call, residuals: Any, upstream: Array | SymbolicZero) -> tuple[Any, ...]:
    mark, value, arrays = residuals
    needs = _needs_of(mark)
    if isinstance(upstream, SymbolicZero):
        upstream = jnp.zeros(upstream.shape, upstream.dtype)
    by_weight = upstream * value
    if not any(needs):
        return by_weight, None, None, None
    if len(arrays) == len(needs):  # the gradients
        kept = [array if need else None for array, need in zip(arrays, needs, strict=True)]
        return by_weight, *_scaled(call, upstream, *kept)
    weight, *inputs = arrays
    return by_weight, *_gradients(call, needs, upstream * weight, *inputs)


loss.defvjp(_forward, _backward, symbolic_zeros=True)
