"""The UEM of `ulfd.uem` as pure functions: for plain JAX, Flax, Equinox and Haiku alike.

The weights are one flat dictionary with PyTorch's names and layouts, whatever the layout of the
features, so that one safetensors file serves torch, JAX and NumPy. Batch normalisation's running
statistics are a second dictionary, the state; without normalisation it is empty.

The spec is static: close over it. JAX finds no array in one that is passed through `jit` or kept
among the weights.
"""

import math
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax import numpy as jnp

from ulfd import checks
from ulfd.extras import require
from ulfd.uem import UEMSpec
from ulfd_jax.functional import ulfd_loss
from ulfd_jax.uem_pass import STATE_REMEDY, Pass, Reconstruction, Weights, state_shapes

Array = jax.Array

jax.tree_util.register_static(UEMSpec)


def _check_spec(spec: UEMSpec) -> None:
    if not isinstance(spec, UEMSpec):
        raise TypeError(f"UEM: spec is {spec!r}, but must be a UEMSpec, as UEMSpec(64).")


def init(key: Array, spec: UEMSpec) -> dict[str, Array]:
    """Fresh float32 weights by name, from PyTorch's distribution: U(−1/√n, 1/√n), n the fan-in.

    >>> import jax
    >>> spec = UEMSpec(16)
    >>> weights = init(jax.random.key(0), spec)
    >>> sum(weight.size for weight in weights.values()) == spec.parameters()
    True

    Args:
        key: of `jax.random.key`.
        spec: the UEM to build.
    Raises:
        TypeError: the key or the spec is none.
    """
    if not hasattr(key, "dtype"):
        raise TypeError(f"UEM: key is {key!r}, but must be one of JAX, as jax.random.key(0).")
    _check_spec(spec)
    return _init(key, spec)


@partial(jax.jit, static_argnames="spec")
def _init(key: Array, spec: UEMSpec) -> dict[str, Array]:
    shapes = spec.weight_shapes()
    # One draw for all: XLA compiles every call of a generator anew.
    draws = jax.random.uniform(key, (spec.parameters(),), jnp.float32, minval=-1.0, maxval=1.0)
    weights, start = {}, 0
    for name, shape in shapes.items():
        layer, kind = name.rsplit(".", 1)
        stop = start + math.prod(shape)
        if ".norm" in name:
            weights[name] = jnp.full(shape, kind == "weight", jnp.float32)
        else:
            fan_in = math.prod(shapes[f"{layer}.weight"][1:])
            weights[name] = draws[start:stop].reshape(shape) / math.sqrt(fan_in)
        start = stop
    return weights


def init_state(spec: UEMSpec) -> dict[str, Array]:
    """The running statistics before the first batch; empty without batch normalisation."""
    _check_spec(spec)
    return {
        name: jnp.full(shape, name.endswith("var"), jnp.float32 if shape else jnp.int32)
        for name, shape in state_shapes(spec).items()
    }


@partial(jax.jit, static_argnames=("spec", "layout"), inline=True)
def apply(
    params: Weights,
    student: Array,
    *,
    spec: UEMSpec,
    state: Weights | None = None,
    layout: str = "NCHW",
) -> Array | Reconstruction:
    """σ for the features ẑ, with running statistics where the UEM normalises.

    >>> import jax, jax.numpy as jnp
    >>> spec = UEMSpec(16)
    >>> apply(init(jax.random.key(0), spec), jnp.ones((2, 16, 7, 7)), spec=spec).shape
    (2, 1, 1, 1)

    Args:
        params: from `init` or `load`.
        student: ẑ, (B, C, H, W), (B, H, W, C) for layout="NHWC", or tokens (B, T, C) for "NTC",
            which count as an image of T×1; computed in its dtype.
        spec: the UEM that the weights belong to.
        state: from `init_state`, `train` or `load`; needed for normalization="batch" only.
        layout: of the features and of σ, "NCHW", "NHWC" or "NTC".
    Returns:
        σ in the layout, of `spec.output_shape`; the variant "reconstruct" adds the new feature.
    Raises:
        ValueError: features, weights or state are not those of the spec, batch normalisation
            lacks its state, or the layout is unknown.
        TypeError: the features are no floating-point array, or params no dictionary.
    """
    _check_spec(spec)
    if state is None and spec.normalization == "batch":
        raise ValueError(f"UEM: normalization='batch' needs its state; {STATE_REMEDY}.")
    return Pass(spec, params, state or {}, layout, train=False).run(student)


@partial(jax.jit, static_argnames=("spec", "layout"), inline=True)
def train(
    params: Weights, state: Weights, student: Array, *, spec: UEMSpec, layout: str = "NCHW"
) -> tuple[Array | Reconstruction, dict[str, Array]]:
    """`apply` with the batch's own statistics, and the state with these averaged in.

    Args, Raises: as in `apply`.
    Returns:
        (what `apply` returns, the new state).
    """
    _check_spec(spec)
    forward = Pass(spec, params, state, layout, train=True)
    return forward.run(student), forward.state


@partial(jax.jit, static_argnames=("spec", "prior_weight", "clamp"))
def start_from(
    params: Weights,
    student: Array,
    teacher: Array,
    *,
    spec: UEMSpec,
    prior_weight: float = 2.0,
    clamp: tuple[float, float] | None = None,
) -> dict[str, Array]:
    """Weights that make σ the one number that fits a first batch best, log(mean (z − ẑ)²/k).

    The last layer's become 0, its bias −σ. For before the first training step.

    >>> import jax, jax.numpy as jnp
    >>> spec, student = UEMSpec(4), jnp.zeros((1, 4, 7, 7))
    >>> params = start_from(init(jax.random.key(0), spec), student, student + 2, spec=spec)
    >>> round(float(apply(params, student, spec=spec)[0, 0, 0, 0]), 4)  # log(2²/2)
    0.6931

    Args:
        params: from `init`.
        student: ẑ, in any layout.
        teacher: z, the same shape.
        spec: the UEM that the weights belong to.
        prior_weight: k of the loss, > 0.
        clamp: of the loss, beyond which σ would have no gradient.
    Returns:
        new weights; those given are left alone.
    Raises:
        ValueError: σ of this UEM is never one number, as the official one's; or k <= 0.
    """
    _check_spec(spec)
    name = spec.checked_start_layer(prior_weight)
    best = jnp.log(ulfd_loss(student, teacher) / prior_weight)
    # Features that are equal, or not finite, say nothing about σ.
    best = jnp.where(jnp.isfinite(best), best, 0.0)
    best = best if clamp is None else jnp.clip(best, *clamp)
    weight, bias = (params[f"{name}.{part}"] for part in ("weight", "bias"))
    changed = {f"{name}.weight": jnp.zeros_like(weight), f"{name}.bias": jnp.full_like(bias, -best)}
    return {**params, **changed}


def save(path: Path | str, params: Weights, state: Weights | None = None) -> None:
    """Writes weights and state to a safetensors file.

    In torch: `ulfd_torch.UEM(spec).load_state_dict(safetensors.torch.load_file(path))`.

    Raises:
        TypeError: params holds more than the UEM's arrays.
    """
    require("safetensors", extra="jax")
    from safetensors.numpy import save as to_bytes

    arrays = {name: np.asarray(array) for name, array in {**params, **(state or {})}.items()}
    for name, array in arrays.items():
        if array.dtype == object:
            raise TypeError(
                f"UEM: params[{name!r}] is a {type(params[name]).__name__}, not an array; give the "
                "UEM's weights alone, as of uem.init, and save your network's as you always do."
            )
    Path(path).write_bytes(to_bytes(arrays))  # its save_file hides the file from other users


def load(path: Path | str, spec: UEMSpec) -> tuple[dict[str, Array], dict[str, Array]]:
    """(weights, state) from a safetensors file, as of `save` or of torch's `UEM.state_dict`.

    Raises:
        ValueError: the file's names or shapes are not those of the spec.
    """
    require("safetensors", extra="jax")
    from safetensors.numpy import load_file

    _check_spec(spec)
    found, state = load_file(path), init_state(spec)
    expected = spec.weight_shapes() | state_shapes(spec)
    remedy = spec.weights_remedy(found, "load it with the UEMSpec it was saved with")
    checks.check_weights(str(path), found, expected, f"the weights of {spec}", remedy)
    weights = {name: jnp.asarray(found[name]) for name in spec.weight_shapes()}
    return weights, {name: jnp.asarray(found[name], array.dtype) for name, array in state.items()}
