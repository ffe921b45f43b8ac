"""One forward pass of the UEM in JAX, on weights that it checks while JAX traces."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
from jax import lax
from jax import numpy as jnp

from ulfd import checks
from ulfd.uem import Convolution, UEMSpec

Array = jax.Array
Weights = Mapping[str, Array]
MOMENTUM, EPSILON = 0.1, 1e-5  # of batch normalisation, torch's
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_PARAMS_REMEDY = (
    "pass the UEMSpec they were made with, and params as of uem.init(key, spec) or "
    "`params, state = uem.load(path, spec)`: uem.apply(params, features, spec=spec)"
)
STATE_REMEDY = (
    "pass state as of uem.init_state(spec) before training, then what uem.train or uem.load gave"
)


class Reconstruction(NamedTuple):
    """What a UEM of the variant "reconstruct" returns."""

    log_variance: Array
    feature: Array  # replaces ẑ, in the loss and in the classifier


def state_shapes(spec: UEMSpec) -> dict[str, tuple[int, ...]]:
    """The running statistics' names and shapes; none without batch normalisation."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in spec.weight_shapes().items():
        if ".norm" in name and name.endswith(".weight"):
            layer = name.removesuffix(".weight")
            each = (shape, shape, ())
            shapes |= {f"{layer}.{key}": s for key, s in zip(_STATISTICS, each, strict=True)}
    return shapes


class Pass:
    """One forward pass: where the weights are, and the state that it leaves."""

    def __init__(
        self, spec: UEMSpec, params: Weights, state: Weights, layout: str, train: bool
    ) -> None:
        weights, statistics = f"the weights of {spec}", f"the running statistics of {spec}"
        remedy = spec.weights_remedy(params, _PARAMS_REMEDY)
        checks.check_weights("params", params, spec.weight_shapes(), weights, remedy)
        checks.check_weights("state", state, state_shapes(spec), statistics, STATE_REMEDY)
        self.spec, self.params, self.train = spec, params, train
        self.given = layout
        self.layout = "NHWC" if layout == "NTC" else layout  # tokens: T rows of one pixel
        self.state = dict(state)
        self.spatial = (2, 3) if layout == "NCHW" else (1, 2)

    def _per_channel(self, vector: Array, like: Array) -> Array:
        shape = (1, -1, 1, 1) if self.layout == "NCHW" else (1, 1, 1, -1)
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
            for key, old, new in (
                (mean_name, mean, batch_mean),
                (variance_name, variance, unbiased),
            ):
                self.state[key] = (1 - MOMENTUM) * old + MOMENTUM * new.astype(old.dtype)
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
        checks.check_dtypes("UEM", student=student.dtype)
        self.spec.output_shape(student.shape, self.given)
        if self.given != "NTC":
            return self.run_image(student)
        squeeze = partial(jnp.squeeze, axis=2)
        return jax.tree.map(squeeze, self.run_image(jnp.expand_dims(student, 2)))

    def run_image(self, student: Array) -> Array | Reconstruction:
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
