"""The UEM of `ulfd.uem` as pure functions: for plain JAX, Flax, Equinox and Haiku alike.

The weights are one flat dictionary with PyTorch's names and layouts, whatever the layout of the
features, so that one safetensors file serves torch, JAX and NumPy. Batch normalisation's running
statistics are a second dictionary, the state; without normalisation it is empty.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from ulfd.extras import require
from ulfd.uem import Convolution, UEMSpec

Array = jax.Array
Weights = Mapping[str, Array]
LAYOUTS = ("NCHW", "NHWC")
MOMENTUM, EPSILON = 0.1, 1e-5  # of batch normalisation, torch's
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Reconstruction(NamedTuple):
    """What a UEM of the variant "reconstruct" returns."""

    log_variance: Array
    feature: Array  # replaces ẑ, in the loss and in the classifier


@partial(jax.jit, static_argnames="spec")
def init(key: Array, spec: UEMSpec) -> dict[str, Array]:
    """Fresh float32 weights by name, from PyTorch's distribution: U(−1/√n, 1/√n), n the fan-in.

    >>> import jax
    >>> spec = UEMSpec(16, blocks=1)
    >>> weights = init(jax.random.key(0), spec)
    >>> sum(weight.size for weight in weights.values()) == spec.parameters()
    True

    Args:
        key: of `jax.random.key`.
        spec: the UEM to build.
    """
    shapes = spec.weight_shapes()
    # One draw for all: XLA compiles every call of a generator anew.
    draws = jax.random.uniform(key, (spec.parameters(),), minval=-1.0, maxval=1.0)
    weights, start = {}, 0
    for name, shape in shapes.items():
        layer, kind = name.rsplit(".", 1)
        stop = start + math.prod(shape)
        if ".norm" in name:
            weights[name] = jnp.full(shape, float(kind == "weight"))
        else:
            fan_in = math.prod(shapes[f"{layer}.weight"][1:])
            weights[name] = draws[start:stop].reshape(shape) / math.sqrt(fan_in)
        start = stop
    return weights


def init_state(spec: UEMSpec) -> dict[str, Array]:
    """The running statistics before the first batch; empty without batch normalisation."""
    state: dict[str, Array] = {}
    for name, shape in spec.weight_shapes().items():
        if ".norm" in name and name.endswith(".weight"):
            layer = name.removesuffix(".weight")
            fresh = (jnp.zeros(shape), jnp.ones(shape), jnp.zeros((), jnp.int32))
            state |= {f"{layer}.{key}": x for key, x in zip(_STATISTICS, fresh, strict=True)}
    return state


class _Pass:
    """One forward pass: where the weights are, and the state that it leaves."""

    def __init__(
        self, spec: UEMSpec, params: Weights, state: Weights, layout: str, train: bool
    ) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f"UEM: layout is {layout!r}, but must be one of {LAYOUTS}.")
        self.spec, self.params, self.layout, self.train = spec, params, layout, train
        self.state = dict(state)
        self.spatial = (2, 3) if layout == "NCHW" else (1, 2)

    def _per_channel(self, vector: Array, like: Array) -> Array:
        shape = (-1, 1, 1) if self.layout == "NCHW" else (-1,)
        return vector.astype(like.dtype).reshape(shape)

    def convolution(self, layer: Convolution, x: Array) -> Array:
        kernel = self.params[f"{layer.name}.weight"].astype(x.dtype)
        padding, names, dilation, stride = layer.padding, "OIHW", 1, layer.stride
        if layer.transposed:  # the gradient of a convolution, which is one over a spread input
            kernel = kernel[:, :, ::-1, ::-1]
            padding, names, dilation, stride = layer.kernel - 1 - padding, "IOHW", stride, 1
        out = lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(stride,) * 2,
            padding=((padding,) * 2,) * 2,
            lhs_dilation=(dilation,) * 2,
            dimension_numbers=(self.layout, names, self.layout),
        )
        return out + self._per_channel(self.params[f"{layer.name}.bias"], out)

    def normalisation(self, name: str, x: Array) -> Array:
        if self.spec.normalization == "none":
            return x
        mean_name, variance_name, count_name = (f"{name}.{key}" for key in _STATISTICS)
        mean, variance = self.state[mean_name], self.state[variance_name]
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.train:
            axes = (0, *self.spatial)
            batch_mean, batch_variance = jnp.mean(wide, axes), jnp.var(wide, axes)
            samples = x.size // mean.size
            unbiased = batch_variance * (samples / max(1, samples - 1))
            self.state[mean_name] = (1 - MOMENTUM) * mean + MOMENTUM * batch_mean
            self.state[variance_name] = (1 - MOMENTUM) * variance + MOMENTUM * unbiased
            self.state[count_name] = self.state[count_name] + 1
            mean, variance = batch_mean, batch_variance
        scale = self.params[f"{name}.weight"] * lax.rsqrt(variance + EPSILON)
        centred = wide - self._per_channel(mean, wide)
        shifted = centred * self._per_channel(scale, wide)
        return (shifted + self._per_channel(self.params[f"{name}.bias"], wide)).astype(x.dtype)

    def branch(self, name: str, x: Array, *, last_relu: bool = True) -> Array:
        """The convolutions of a block or head, a ReLU after each; the caller adds x."""
        layers = self.spec.branch(name)
        for layer in layers:
            x = self.normalisation(layer.name.replace("conv", "norm"), self.convolution(layer, x))
            if last_relu or layer is not layers[-1]:
                x = jax.nn.relu(x)
        return x

    def pool(self, x: Array) -> Array:
        window = tuple(2 if axis in self.spatial else 1 for axis in range(4))
        return lax.reduce_window(x, 0.0, lax.add, window, window, "VALID") / 4

    def middle(self, deconv: Convolution, student: Array) -> Array:
        """What the heads of the official structure see."""
        x = jax.nn.relu(self.convolution(deconv, student))
        for index in range(self.spec.blocks):
            x = x + self.branch(f"blocks.{index}", x)
        pooled = self.pool(x)
        return student + pooled if self.spec.global_skip else pooled

    def run(self, student: Array) -> Array | Reconstruction:
        batch, height, width = (student.shape[axis] for axis in (0, *self.spatial))
        channels = student.shape[1 if self.layout == "NCHW" else 3]
        self.spec.output_shape((batch, channels, height, width))
        layers = {layer.name: layer for layer in self.spec.convolutions()}
        pointwise = self.spec.structure == "pointwise"
        middle = student if pointwise else self.middle(layers["deconv"], student)
        added = middle if self.spec.residual_heads else 0.0
        linear = self.spec.output == "linear"
        precision = added + self.branch("head", middle, last_relu=not linear)
        if self.spec.log_variance != "element":
            precision = self.convolution(layers["to_map"], precision)
            precision = precision if linear else jax.nn.relu(precision)
        if self.spec.log_variance == "sample":
            precision = jnp.mean(precision, self.spatial, keepdims=True)
        if self.spec.variant == "side_branch":
            return -precision
        return Reconstruction(-precision, added + self.branch("reconstruction", middle))


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
    >>> spec = UEMSpec(16, blocks=1)
    >>> apply(init(jax.random.key(0), spec), jnp.ones((2, 16, 7, 7)), spec=spec).shape
    (2, 16, 7, 7)

    Args:
        params: from `init` or `load`.
        student: ẑ, (B, C, H, W), or (B, H, W, C) for layout="NHWC"; computed in its dtype.
        spec: the UEM that the weights belong to.
        state: from `init_state`, `train` or `load`; needed for normalization="batch" only.
        layout: of the features and of σ, "NCHW" or "NHWC".
    Returns:
        σ in the layout, of `spec.output_shape`; the variant "reconstruct" adds the new feature.
    Raises:
        ValueError: the features have another number of channels, or the layout is unknown.
    """
    fresh = init_state(spec) if state is None else state
    return _Pass(spec, params, fresh, layout, train=False).run(student)


@partial(jax.jit, static_argnames=("spec", "layout"), inline=True)
def train(
    params: Weights, state: Weights, student: Array, *, spec: UEMSpec, layout: str = "NCHW"
) -> tuple[Array | Reconstruction, dict[str, Array]]:
    """`apply` with the batch's own statistics, and the state with these averaged in.

    Args: as in `apply`.
    Returns:
        (what `apply` returns, the new state).
    """
    forward = _Pass(spec, params, state, layout, train=True)
    return forward.run(student), forward.state


def save(path: Path | str, params: Weights, state: Weights | None = None) -> None:
    """Writes weights and state to a safetensors file that torch's `load_state_dict` takes."""
    require("safetensors", extra="jax")
    from safetensors.numpy import save_file

    arrays = {name: np.asarray(array) for name, array in {**params, **(state or {})}.items()}
    save_file(arrays, path)


def load(path: Path | str, spec: UEMSpec) -> tuple[dict[str, Array], dict[str, Array]]:
    """(weights, state) from a safetensors file, as of `save` or of torch's `UEM.state_dict`.

    Raises:
        ValueError: the file's names or shapes are not those of the spec.
    """
    require("safetensors", extra="jax")
    from safetensors.numpy import load_file

    found = load_file(path)
    state = init_state(spec)
    expected = spec.weight_shapes() | {name: array.shape for name, array in state.items()}
    shapes = {name: array.shape for name, array in found.items()}
    if shapes != expected:
        wrong = sorted(name for name in shapes | expected if shapes.get(name) != expected.get(name))
        raise ValueError(
            f"UEM: {path} does not hold the weights of {spec}: {len(wrong)} names or shapes "
            f"differ, the first is {wrong[0]!r} with shape {shapes.get(wrong[0])} instead of "
            f"{expected.get(wrong[0])}; load it with the UEMSpec it was saved with."
        )
    weights = {name: jnp.asarray(found[name]) for name in spec.weight_shapes()}
    return weights, {name: jnp.asarray(found[name], array.dtype) for name, array in state.items()}
