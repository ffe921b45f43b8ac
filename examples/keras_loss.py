"""ulfd in Keras 3: `python -m examples.keras_loss`, with KERAS_BACKEND=torch or jax before it.

A `keras.losses.Loss` for a prediction with a log-variance, and a layer that turns any Keras
classifier into one that learns from pairs. Under PyTorch and JAX our adapters compute the loss,
with their kernels; under TensorFlow Keras' own operations do. Runs from the checkout, with
`pip install '.[examples]'`.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops


def ulfd_loss(student: Any, teacher: Any, log_variance: Any, weight: float = 1.0) -> Any:
    """λ · mean(exp(−σ)·(z − ẑ)² + 2σ) (Eq. 9) of the backend's tensors."""
    if keras.backend.backend() == "torch":
        import ulfd_torch

        return ulfd_torch.ulfd_loss(student, teacher, log_variance, weight=weight)
    if keras.backend.backend() == "jax":
        import ulfd_jax

        return ulfd_jax.ulfd_loss(student, teacher, log_variance, weight=weight)
    return with_keras_operations(student, teacher, log_variance, weight)


def with_keras_operations(student: Any, teacher: Any, log_variance: Any, weight: float) -> Any:
    """The same of any backend, in several passes over memory."""
    residual = (student - teacher) * ops.exp(-0.5 * log_variance)
    return weight * ops.mean(ops.square(residual) + 2 * log_variance)


@keras.saving.register_keras_serializable("ulfd")
class UncertaintyLoss(keras.losses.Loss):
    """Of targets (B, D) and answers (B, 2D): D predictions, then their D log-variances."""

    def __init__(self, name: str = "ulfd", **options: Any) -> None:
        # The loss is one number, the mean of the batch.
        super().__init__(name=name, reduction="sum_over_batch_size", **options)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        prediction, log_variance = ops.split(y_pred, 2, axis=-1)
        return ulfd_loss(prediction, y_true, log_variance)


@keras.saving.register_keras_serializable("ulfd")
class FeatureDistillation(layers.Layer):
    """Adds λ·L_ULFD(z, ẑ, σ) to a model's loss, σ from a 1×1 convolution of ẑ (a small UEM).

    Called with the features (B, H, W, C) of the degraded and of the clean images, it returns the
    first; it isn't needed at test time.
    """

    def __init__(self, weight: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.weight = weight
        # Zeros: σ begins at 0, where the loss is the MSE.
        self.uem = layers.Conv2D(1, 1, kernel_initializer="zeros", name="uem")

    def build(self, student_shape: Any, teacher_shape: Any) -> None:
        self.uem.build(student_shape)

    def call(self, student: Any, teacher: Any) -> Any:
        self.add_loss(ulfd_loss(student, teacher, self.uem(student), self.weight))
        return student

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weight": self.weight}


def distilling(backbone: keras.Model, head: keras.Model) -> keras.Model:
    """A model of pairs (clean, degraded) with the logits of both, for `fit` with any loss of them.

    Args:
        backbone: images to features (B, H, W, C); shared by both images.
        head: features to logits (B, classes).
    """
    clean, degraded = (keras.Input(backbone.input_shape[1:]) for _ in range(2))
    teacher, student = backbone(clean), backbone(degraded)
    student = FeatureDistillation()(student, teacher)
    return keras.Model([clean, degraded], [head(teacher), head(student)])


def classifier() -> tuple[keras.Model, keras.Model]:
    """A small backbone and its head; yours may be of keras.applications."""
    backbone = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2),
        ]
    )
    head = keras.Sequential(
        [keras.Input(backbone.output_shape[1:]), layers.GlobalMaxPooling2D(), layers.Dense(10)]
    )
    return backbone, head


def main(epochs: int = 3) -> keras.Model:
    """Train on the embedded garments; the plain classifier comes back."""
    from reference_training.corruptions import SEEN, corrupt
    from reference_training.data import load

    data = load("fashion-mnist-subset")
    images, labels = data.train_images[:2000], np.asarray(data.train_labels[:2000])
    kinds = [SEEN[index % len(SEEN)] for index in range(len(images))]
    seeds = range(len(images))
    worse = corrupt(images, kinds, [3] * len(images), seeds=list(seeds), frost="procedural")
    clean, degraded = (np.asarray(i.permute(0, 2, 3, 1), np.float32) / 255 for i in (images, worse))

    keras.utils.set_random_seed(0)
    backbone, head = classifier()
    model = distilling(backbone, head)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss=[cross_entropy, cross_entropy])
    model.fit([clean, degraded], [labels, labels], batch_size=64, epochs=epochs, verbose=2)
    return keras.Sequential([backbone, head])


if __name__ == "__main__":
    main()
