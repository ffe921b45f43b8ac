"""A network by its name, with the library's weights or those of a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reference_training.networks.libraries import Loaded, find
from reference_training.networks.preprocessing import Preprocessing
from reference_training.networks.weights import (
    classes_of,
    fill,
    find_weights,
    read_tensors,
    take_normalisation,
)
from reference_training.runtime.errors import RunError


def load_model(
    name: str,
    *,
    checkpoint: Path | None = None,
    checkpoint_prefix: str | None = None,
    weights: str | None = None,
    download: bool = False,
) -> Loaded:
    """A network by its name, with weights from a file or the library's own.

    Args:
        name: "resnet50", "torchvision:resnet50", "timm:resnet50.a1_in1k", "run:digits".
        checkpoint: .safetensors, or .pth of tensors; the number of classes is the file's.
        checkpoint_prefix: below which names the weights stand; None finds it.
        weights: which of the library's weights; None is torchvision's IMAGENET1K_V1.
        download: whether the library may fetch its weights from the network.

    Returns:
        The network, in eval mode, and the preprocessing that its weights were made for.

    Raises:
        RunError: an unknown name, missing or unfit weights.
        ImportError: timm is asked for and not installed, with the pip line.
    """
    architecture = find(name)
    if checkpoint is None:
        loaded = architecture.pretrained(weights, download)
    else:
        if weights is not None:
            raise RunError("--weights and --checkpoint exclude each other; give one.")
        tensors = read_tensors(checkpoint)
        own = take_normalisation(tensors)
        model = architecture.build(architecture.classes)
        found = find_weights(model, tensors, checkpoint_prefix)
        classes = classes_of(model, found)
        if classes is not None:
            model = architecture.build(classes)
        fill(model, found)
        # Own weights may have been trained at any size, so images are left as they are.
        ready = replace(architecture.preprocessing, input_size=None)
        if own is not None:
            ready = Preprocessing(*own)
        label = f"{name} ({checkpoint.name})"
        loaded = Loaded(label, model, classes or architecture.classes, ready)
    loaded.model.eval()
    return loaded
