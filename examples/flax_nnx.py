"""Flax NNX with optax, on degraded digits: `python -m examples.flax_nnx`.

The UEM is pure functions over a dictionary of weights; a module of eight lines makes it NNX's.
Images and corruptions are those of jax_digits.py, here in Flax's layout (B, H, W, C).
Needs `pip install '.[jax]' flax optax scikit-learn tqdm tyro`.
"""

from pathlib import Path

import jax
import numpy as np
import optax
import tyro
from flax import nnx
from safetensors.numpy import save_file
from tqdm import tqdm

from examples.jax_digits import SEEN, SEVERITIES, TRAIN, corrupt, digits, pairs
from ulfd import UEMSpec
from ulfd_jax import uem, ulfd_loss

Array = jax.Array


class UEM(nnx.Module):
    """Feature ẑ (B, H, W, C) to σ, (B, 1, 1, 1) by the default specification."""

    def __init__(self, spec: UEMSpec, *, rngs: nnx.Rngs) -> None:
        weights = uem.init(rngs.params(), spec)
        self.spec = spec
        self.weights = nnx.Dict({name: nnx.Param(weight) for name, weight in weights.items()})

    def __call__(self, student: Array) -> Array:
        weights = {name: weight[...] for name, weight in self.weights.items()}
        return uem.apply(weights, student, spec=self.spec, layout="NHWC")


class Network(nnx.Module):
    """Yours: images (B, H, W, 1) to features, which are distilled, and these to logits (B, 10)."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        layers: list = []
        for before, after in ((1, width // 2), (width // 2, width)):
            convolution = nnx.Conv(before, after, (3, 3), strides=2, use_bias=False, rngs=rngs)
            layers += [convolution, nnx.BatchNorm(after, rngs=rngs), nnx.relu]
        self.features = nnx.Sequential(*layers)
        self.classifier = nnx.Linear(width, 10, rngs=rngs)

    def logits(self, features: Array) -> Array:
        return self.classifier(features.mean((1, 2)))


class Student(nnx.Module):
    """What one optimiser trains; `network` alone is deployed."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.network = Network(width, rngs=rngs)
        self.uem = UEM(UEMSpec(width), rngs=rngs)


def objective(student: Student, clean: Array, degraded: Array, labels: Array) -> Array:
    """CE(clean) + CE(degraded) + λ · ULFD, Eq. 10."""
    z_hat, z = student.network.features(degraded), student.network.features(clean)
    total = ulfd_loss(z_hat, z, student.uem(z_hat), weight=0.1, clamp=(-10.0, 10.0))
    for feature in (z, z_hat):
        logits = student.network.logits(feature)
        total += optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return total


@nnx.jit
def train_step(student: Student, optimizer: nnx.Optimizer, *batch: Array) -> Array:
    loss, gradients = nnx.value_and_grad(objective)(student, *batch)
    optimizer.update(student, gradients)
    return loss


@nnx.jit
def accuracy(network: Network, images: Array, labels: Array) -> Array:
    return (network.logits(network.features(images)).argmax(1) == labels).mean()


def main(iterations: int = 800, width: int = 64, out: Path | None = None) -> Student:
    """Trains, prints top-1 on unseen images, and saves the network, as safetensors, to `out`."""
    images, labels = digits()
    student = Student(width, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(student, optax.adam(3e-3), wrt=nnx.Param)
    batches = pairs(images[:TRAIN], labels[:TRAIN], seed=0, iterations=iterations)
    for *pair, classes in tqdm(batches, total=iterations):
        train_step(student, optimizer, *(np.moveaxis(x, 1, 3) for x in pair), classes)

    student.eval()  # its normalisation goes by the running averages now
    rng = np.random.default_rng(0)
    images, labels = images[TRAIN:], labels[TRAIN:]
    shown = [images, *(corrupt(name, images, by, rng) for name in SEEN for by in SEVERITIES)]
    clean, *degraded = (accuracy(student.network, np.moveaxis(x, 1, 3), labels) for x in shown)
    print(
        f"top-1 on {len(labels)} test images: {clean:.0%} clean, {np.mean(degraded):.0%} degraded"
    )
    if out:
        state = nnx.to_flat_state(nnx.state(student.network))
        save_file({".".join(map(str, path)): np.asarray(x[...]) for path, x in state}, out)
    return student


if __name__ == "__main__":
    tyro.cli(main)
