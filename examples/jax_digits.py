"""Trains a ResNet on degraded digits in pure JAX: `python -m examples.jax_digits`.

scikit-learn's handwritten digits, degraded by NumPy; a small ResNet trained on the clean ones, and
from it the three columns of the paper's Table 5: cross entropy on clean and degraded images, with
the features' MSE, and with ULFD and its UEM (Eq. 10). Ends in the table that `make run` ends in,
for these images and corruptions. Runs from the checkout, with
`pip install '.[jax]' optax scikit-learn tqdm`.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax import lax
from jax import numpy as jnp
from sklearn.datasets import load_digits
from tqdm import tqdm

from ulfd import UEMSpec
from ulfd_jax import uem, ulfd_loss

Array = jax.Array
Images = np.ndarray[Any, Any]
TRAIN, SEVERITIES, BATCH, WEIGHT = 1297, (1, 2, 3, 4, 5), 64, 0.1
WIDTHS, GROUPS = (16, 32), 8
SPEC = UEMSpec(WIDTHS[-1])

# ------------------------------------------------------- images (N, 1, 16, 16) in [0, 1], in NumPy


def digits() -> tuple[Images, Images]:
    """All 1,797 images, enlarged twice, and their labels, in a fixed random order."""
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images = np.kron(found.images[order], np.ones((2, 2))) / 16
    return images[:, None].astype(np.float32), found.target[order]


def blur(images: Images, severity: int, rng: np.random.Generator) -> Images:
    """`severity` passes of the 3 × 3 binomial filter."""
    for axis in (2, 3) * severity:
        images = (np.roll(images, 1, axis) + 2 * images + np.roll(images, -1, axis)) / 4
    return images


def impulse_noise(images: Images, severity: int, rng: np.random.Generator) -> Images:
    hit = rng.random(images.shape) < 0.08 * severity
    return np.where(hit, rng.integers(0, 2, images.shape), images)


def pixelate(images: Images, severity: int, rng: np.random.Generator) -> Images:
    """Means of rows, then of columns, over strips of severity + 2."""
    for axis in (2, 3):
        starts = np.arange(0, images.shape[axis], severity + 2)
        sizes = np.diff([*starts, images.shape[axis]])
        shape = [1] * 4
        shape[axis] = len(sizes)
        means = np.add.reduceat(images, starts, axis) / sizes.reshape(shape)
        images = np.repeat(means, sizes, axis)
    return images


Corruption = Callable[[Images, int, np.random.Generator], Images]
SEEN: dict[str, Corruption] = {
    "gaussian_noise": lambda x, s, rng: x + rng.normal(0, 0.15 * s, x.shape),
    "impulse_noise": impulse_noise,
    "blur": blur,
    "contrast": lambda x, s, rng: 0.5 + (x - 0.5) * (0.6, 0.45, 0.3, 0.2, 0.12)[s - 1],
    "pixelate": pixelate,
}
UNSEEN: dict[str, Corruption] = {
    "speckle_noise": lambda x, s, rng: x * (1 + rng.normal(0, 0.3 * s, x.shape)),
    "brightness": lambda x, s, rng: x + 0.15 * s,
}


def corrupt(name: str, images: Images, severity: int, rng: np.random.Generator) -> Images:
    """The images under one corruption, clipped to [0, 1]."""
    return (SEEN | UNSEEN)[name](images, severity, rng).clip(0, 1).astype(np.float32)


def pairs(images: Images, labels: Images, seed: int, iterations: int) -> Iterator[tuple]:
    """Batches (clean, degraded, labels); each has one seen corruption for every eighth of it."""
    rng = np.random.default_rng(seed)
    for _ in range(iterations):
        chosen = rng.integers(0, len(labels), BATCH)
        parts = np.split(images[chosen], 8)
        kinds, severities = rng.choice(list(SEEN), 8), rng.integers(1, 6, 8)
        degraded = [corrupt(*part, rng) for part in zip(kinds, parts, severities, strict=True)]
        yield images[chosen], np.concatenate(degraded), labels[chosen]


# ---------------------------------------------------- a ResNet with group normalisation, by hand


@jax.jit
def init_network(key: Array) -> dict[str, Array]:
    """The weights of one basic block for each width, and of the classifier, by name."""
    shapes = {"stem": (WIDTHS[0], 1, 3, 3), "classifier": (10, WIDTHS[-1])}
    for index, width in enumerate(WIDTHS):
        before = WIDTHS[max(0, index - 1)]
        shapes |= {f"{index}.conv1": (width, before, 3, 3), f"{index}.conv2": (width, width, 3, 3)}
        shapes |= {f"{index}.shortcut": (width, before, 1, 1)}
    keys = jax.random.split(key, len(shapes))
    he = jax.nn.initializers.he_normal(in_axis=1, out_axis=0)
    return {name: he(k, shape) for (name, shape), k in zip(shapes.items(), keys, strict=True)}


def normalised(x: Array) -> Array:
    groups = x.reshape(x.shape[0], GROUPS, -1)
    return jax.nn.standardize(groups, axis=-1).reshape(x.shape)


def features(params: dict[str, Array], images: Array) -> Array:
    """(B, 1, 16, 16) to (B, 32, 4, 4), what is distilled."""

    def convolution(name: str, x: Array, stride: int = 1) -> Array:
        return lax.conv_general_dilated(x, params[name], (stride, stride), "SAME")

    stride = 2
    x = jax.nn.relu(normalised(convolution("stem", images * 2 - 1)))
    for index in range(len(WIDTHS)):
        branch = jax.nn.relu(normalised(convolution(f"{index}.conv1", x, stride)))
        branch = normalised(convolution(f"{index}.conv2", branch))
        x = jax.nn.relu(branch + convolution(f"{index}.shortcut", x, stride))
    return x


def logits(params: dict[str, Array], feature: Array) -> Array:
    return feature.mean((2, 3)) @ params["classifier"].T


# ------------------------------------------------------------------------------ methods, training

Params = dict[str, dict[str, Array]]


def distance(method: str, params: Params, student: Array, teacher: Array) -> Array | float:
    """What a method adds to the cross entropies: λ times MSE, λ times ULFD, or nothing."""
    if method == "+ uncertainty (ULFD)":
        sigma = uem.apply(params["uem"], student, spec=SPEC)
        return ulfd_loss(student, teacher, sigma, weight=WEIGHT, clamp=(-10.0, 10.0))
    if method == "+ feature distillation (MSE)":
        return ulfd_loss(student, teacher, weight=WEIGHT)
    return 0.0


def objective(params: Params, clean: Array, degraded: Array, labels: Array, method: str) -> Array:
    """CE(clean) + CE(degraded) + λ · distance, Eq. 10; CE(clean) alone for the vanilla network."""
    network = params["network"]

    def entropy(feature: Array) -> Array:
        each = optax.softmax_cross_entropy_with_integer_labels(logits(network, feature), labels)
        return each.mean()

    if method == VANILLA:
        return entropy(features(network, clean))
    # One pass for both, which group normalisation keeps apart.
    teacher, student = jnp.split(features(network, jnp.concatenate([clean, degraded])), 2)
    return entropy(teacher) + entropy(student) + distance(method, params, student, teacher)


VANILLA = "vanilla, clean images only"
METHODS = (
    VANILLA,
    "cross entropy on both",
    "+ feature distillation (MSE)",
    "+ uncertainty (ULFD)",
)


def train(params: Params, method: str, batches: Iterator[tuple], iterations: int) -> Params:
    """Adam with a cosine schedule; one compiled step."""
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, iterations))
    state = optimizer.init(params)

    @jax.jit
    def step(params: Params, state: Any, *batch: Array) -> tuple[Params, Any]:
        gradients = jax.grad(objective)(params, *batch, method=method)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for batch in tqdm(batches, method, iterations, leave=False):
        params, state = step(params, state, *batch)
    return params


@jax.jit
def accuracy(params: dict[str, Array], images: Array, labels: Array) -> Array:
    return jnp.mean(jnp.argmax(logits(params, features(params, images)), 1) == labels)


def evaluate(params: dict[str, Array], images: Images, labels: Images) -> dict[str, list[float]]:
    """Top-1 by corruption and severity; the clean images under "clean"."""
    found = {"clean": [float(accuracy(params, images, labels))]}
    for name in SEEN | UNSEEN:
        rng = np.random.default_rng(0)
        found[name] = [
            float(accuracy(params, corrupt(name, images, severity, rng), labels))
            for severity in SEVERITIES
        ]
    return found


Accuracies = dict[str, dict[str, list[float]]]


def run(seed: int, iterations: int, methods: tuple[str, ...] = METHODS) -> Accuracies:
    """Accuracies by method; all start from the seed's vanilla network, the first of them."""
    images, labels = digits()
    training, testing = (images[:TRAIN], labels[:TRAIN]), (images[TRAIN:], labels[TRAIN:])
    network, branch = jax.random.split(jax.random.key(seed))
    start: Params = {"network": init_network(network), "uem": uem.init(branch, SPEC)}
    results = {}
    for method in methods:
        trained = train(start, method, pairs(*training, seed, iterations), iterations)
        if method == VANILLA:
            start = trained
        results[method] = evaluate(trained["network"], *testing)
    return results


# ------------------------------------------------------------------------------------- the table


def table(seeds: list[Accuracies]) -> str:
    """Top-1 in %, mean ± sample standard deviation over the seeds; mCE with vanilla as 100."""

    def mean(found: dict[str, list[float]], names: Any) -> float:
        return 100 * float(np.mean([found[name] for name in names]))

    def corruption_error(method: str, seed: Accuracies) -> float:
        errors = [
            sum(1 - x for x in seed[method][name]) / sum(1 - x for x in seed[VANILLA][name])
            for name in SEEN
        ]
        return 100 * float(np.mean(errors))

    def spread(values: list[float]) -> str:
        deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
        return f"{np.mean(values):.1f}{deviation}"

    titles = ("", "clean", f"seen ({len(SEEN)})", f"unseen ({len(UNSEEN)})", "mCE")
    lines = [titles, ("---", *["---:"] * 4)]
    for method in seeds[0]:
        columns = [[mean(s[method], names) for s in seeds] for names in (["clean"], SEEN, UNSEEN)]
        columns.append([corruption_error(method, s) for s in seeds])
        lines.append((method, *map(spread, columns)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=400, help="of every method")
    parser.add_argument("--json", type=Path, help="where the accuracies go, if anywhere")
    given = parser.parse_args(arguments)
    seeds = [run(seed, given.iterations) for seed in given.seeds]
    print(table(seeds))
    if given.json:
        given.json.write_text(json.dumps(dict(zip(map(str, given.seeds), seeds, strict=True))))


if __name__ == "__main__":
    main()
