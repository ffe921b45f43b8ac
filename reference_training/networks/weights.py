"""Weights from a file into a network: safetensors, or .pth without unpickling any object."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from reference_training.networks.resnet import Classifier
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import reading

EXTRAS = ("inserted.", "enhancer.")
"""Modules that stand beside a backbone in a network of `methods`, and belong to it."""


def cached_file(url: str) -> Path:
    """Where torchvision keeps a file that it fetched from `url`."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_name(path: Path) -> None:
    """Raises RunError unless a file of torchvision's has the hash that ends its name."""
    if not sha256(path).startswith(path.stem.rpartition("-")[2]):
        raise RunError(
            f"{path} is damaged: its SHA-256 is not the one in its name. Delete it and fetch it "
            "again."
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file; those in nested dictionaries by their joined names ("model.fc.bias").

    Raises:
        RunError: no such file, not readable, or it holds more than tensors and plain values.
    """
    if not path.is_file():
        raise RunError(f"the weights {path} are not there; check the file's name.")
    remedy = (
        "It must be .safetensors, or a .pth of tensors alone; other objects are never unpickled. "
        "Save model.state_dict() with safetensors.torch.save_file"
    )
    with reading(path, "is not readable as weights", remedy):
        if path.suffix == ".safetensors":
            return load_file(path)
        return dict(_flat(torch.load(path, map_location="cpu", weights_only=True)))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))


COLOURS = "rgb"
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
MEANS, DEVIATIONS = ("mean", "mu", "new_mean"), ("std", "sigma", "new_std")
"""What libraries call a layer that normalises images inside the network."""


def take_normalisation(tensors: dict[str, Tensor]) -> Normalisation | None:
    """Takes the normalisation of images out of a checkpoint that carries its own.

    Returns:
        Mean and standard deviation of the three channels, of levels from 0 to 1, or None if there
        are none. Numbers of levels from 0 to 255 are divided by 255.

    Raises:
        RunError: there are several, or half of one.
    """
    found: list[set[tuple[float, ...]]] = []
    for names in (MEANS, DEVIATIONS):
        keys = [
            key
            for key, value in tensors.items()
            if key.rpartition(".")[2] in names and value.numel() == len(COLOURS)
        ]
        found.append({tuple(tensors.pop(key).double().flatten().tolist()) for key in keys})
    if not any(found):
        return None
    if [len(values) for values in found] != [1, 1]:
        raise RunError(
            f"the checkpoint carries {len(found[0])} means and {len(found[1])} deviations of "
            "images, of which it should have one or none; save the network that is to be "
            "evaluated without them, and give --mean and --std."
        )
    (mean,), (deviation,) = found
    scale = 255 if max(mean) > 1 else 1
    return tuple(v / scale for v in mean), tuple(v / scale for v in deviation)


def find_weights(model: nn.Module, tensors: Mapping[str, Tensor], prefix: str | None) -> dict:
    """The weights of `model` among named tensors, where all stand below one prefix.

    A prefix is what training scripts put before: "module.", "state_dict.", "step.model.".

    Args:
        model: says which names to look for.
        tensors: all that a file has.
        prefix: the prefix; None finds it.

    Raises:
        RunError: no prefix fits, or several do.
    """
    names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    first = names[0]
    prefixes = [name.removesuffix(first) for name in tensors if name.endswith(first)]
    fitting = [start for start in prefixes if all(start + name in tensors for name in names)]
    if prefix is not None:
        fitting = [found for found in fitting if found == prefix]
    if not fitting:
        best = prefix if prefix is not None else max(prefixes, key=len, default="")
        missing = [name for name in names if best + name not in tensors]
        raise RunError(
            f"the checkpoint lacks {len(missing)} of the network's {len(names)} tensors, as "
            f"{best + missing[0]!r}; it has names as {next(iter(tensors), None)!r}. Is it of this "
            "architecture?"
        )
    if len(fitting) > 1:
        raise RunError(
            "the checkpoint holds these weights more than once, below "
            f"{', '.join(map(repr, fitting))}; choose with --checkpoint-prefix, or where it trains "
            "with --weights-prefix."
        )
    found = fitting[0]
    around = found[: found.rstrip(".").rfind(".") + 1]
    for name in tensors:
        if found != around and name.startswith(tuple(around + extra for extra in EXTRAS)):
            raise RunError(
                f"the checkpoint's network is more than its backbone: it has {name!r} besides. "
                "Evaluate it where it was trained, with --evaluate; the backbone alone is another "
                "network."
            )
    return {
        name.removeprefix(found): value for name, value in tensors.items() if name.startswith(found)
    }


def classes_of(model: nn.Module, weights: Mapping[str, Tensor]) -> int | None:
    """How many classes the weights have, or None if as many as the model.

    They then differ from the model's in the length of the last layer; what differs in more does
    not pass `fill`.
    """
    own = model.state_dict()
    shapes = [(v.shape, own[name].shape) for name, v in weights.items() if name in own]
    lengths = {here[0] for here, there in shapes if here != there and here[1:] == there[1:]}
    return lengths.pop() if len(lengths) == 1 else None


def fill(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Loads the weights; every one must have its place.

    Raises:
        RunError: some have none.
    """
    try:
        missing, unexpected = model.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        first = str(error).split("\n")[1].strip()
        raise RunError(f"the checkpoint is of another architecture: {first}") from error
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        lacks = f"it lacks {len(missing)} tensors, as {missing[:3]}" if missing else ""
        more = f"it has {len(unexpected)} more, as {unexpected[:3]}" if unexpected else ""
        raise RunError(
            f"the checkpoint is of another architecture: {'; '.join(filter(None, (lacks, more)))}."
        )


def fill_from_file(
    model: Classifier, path: Path, name: str, remedy: str, prefix: str | None = None
) -> str:
    """Fills a network, in place, from a file of the same number of classes.

    Args:
        model: whose weights are replaced.
        path: the file, as for `read_tensors`.
        name: of the network, for the message.
        remedy: ends the message.
        prefix: as for `find_weights`.

    Returns:
        The file's SHA-256.

    Raises:
        RunError: the file is damaged, or belongs to another network.
    """
    tensors = read_tensors(path)
    try:
        own = take_normalisation(tensors)
        here = model.mean, model.std
        if own is not None and not torch.allclose(torch.tensor(own), torch.tensor(here)):
            raise RunError(f"it normalises images by {own}, but here they are by {here}.")
        fill(model, find_weights(model, tensors, prefix))
    except RunError as error:
        raise RunError(f"{path} does not hold the weights of a {name}: {error} {remedy}") from error
    return sha256(path)
