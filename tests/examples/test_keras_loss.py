"""Keras under each of its backends: the loss is the formula, and trains."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

# Keras itself imports a backend, and fails where the default one is missing.
pytestmark = pytest.mark.skipif(find_spec("keras") is None, reason="keras is not installed")
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import keras, numpy as np, ulfd
from keras import ops
from examples import keras_loss as example

random = np.random.default_rng(0)
student, teacher = random.normal(size=(2, 6, 5)).astype(np.float32)
sigma = random.normal(size=(6, 5)).astype(np.float32)
exact = float(ulfd.ulfd_loss(student, teacher, sigma))
answers = ops.convert_to_tensor(np.concatenate([student, sigma], 1))
np.testing.assert_allclose(float(example.UncertaintyLoss()(teacher, answers)), exact, rtol=1e-5)
tensors = [ops.convert_to_tensor(array) for array in (student, teacher, sigma)]
found = example.with_keras_operations(*tensors, weight=0.5)
np.testing.assert_allclose(float(found), 0.5 * exact, rtol=1e-5)

keras.utils.set_random_seed(0)
backbone, head = example.classifier()
model = example.distilling(backbone, head)
uem = next(layer for layer in model.layers if isinstance(layer, example.FeatureDistillation)).uem
uem.set_weights([random.normal(size=w.shape) * 0.1 for w in uem.get_weights()])
entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.SGD(0.05), loss=[entropy, entropy])
clean, degraded = random.random((2, 8, 32, 32, 3)).astype(np.float32)
labels = np.arange(8) % 10
z, z_hat = (backbone.predict(images, verbose=0) for images in (clean, degraded))
kernel, bias = uem.get_weights()
predicted = z_hat @ kernel[0, 0] + bias
losses = [float(entropy(labels, head.predict(feature, verbose=0))) for feature in (z, z_hat)]
exact = sum(losses) + 0.1 * float(ulfd.ulfd_loss(z_hat, z, predicted))
found = model.evaluate([clean, degraded], [labels, labels], verbose=0, return_dict=True)["loss"]
np.testing.assert_allclose(found, exact, rtol=1e-5)

before = [weight.copy() for weight in uem.get_weights()]
kwargs = dict(batch_size=8, epochs=5, verbose=0)
history = model.fit([clean, degraded], [labels, labels], **kwargs).history["loss"]
assert history[-1] < history[0], history
assert all((old != new).any() for old, new in zip(before, uem.get_weights()))
print(keras.backend.backend(), "passed")
"""


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_the_loss_is_the_formula_and_trains(backend, tmp_path):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend, "KERAS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith(f"{backend} passed")
