"""`evaluate_corruptions`: any classifier on every (corruption, severity), resumable after each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from reference_training.data.images import fixed_order
from reference_training.data.samples import EvaluationData, EvaluationSet
from reference_training.evaluation.adaptation import NONE, Adaptation
from reference_training.evaluation.corruption_error import ALEXNET
from reference_training.evaluation.loop import Batches, predictions
from reference_training.evaluation.results import TOP, Counts, ResultFolder, checksum
from reference_training.evaluation.sets import choose, sets_of
from reference_training.evaluation.summary import normaliser_from, summarise
from reference_training.networks.preprocessing import Preprocessing
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import write_json
from reference_training.runtime.lock import sole_writer
from reference_training.runtime.ranks import World
from reference_training.runtime.workers import bar

BATCH = 256


def evaluate_corruptions(
    model: nn.Module,
    data: EvaluationData,
    *,
    out: Path,
    preprocessing: Preprocessing,
    name: str | None = None,
    corruptions: Sequence[str] = ("all",),
    subset: int | None = None,
    draw: int | None = None,
    image_list: Path | None = None,
    reference: Path | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    adaptation: Adaptation = NONE,
) -> dict[str, Any]:
    """Evaluate a classifier on clean images and on every corruption at every severity.

    Each finished set is kept, so the same call continues where a killed one stopped, with the same
    numbers. With torch.distributed initialised, the ranks share the sets (and the folder).

    Args:
        model: images (B, 3, H, W) to logits (B, classes), on the device to compute on. It is put
            into eval mode meanwhile.
        data: the sets: `PublishedFolders`, `PublishedArrays` or `OnTheFly`.
        out: the folder of the results; `result.json` there is what is returned.
        preprocessing: how uint8 images become what the network expects.
        name: of the network, for the labels; by default that of its class.
        corruptions: names, or "all", "seen", "unseen".
        subset, draw, image_list: evaluate on some of the images only, see `sets.choose`. Named in
            every label, and kept apart from other results.
        reference: result.json of the network by whose errors to normalise, on the same images; by
            default AlexNet's published errors where the images are ImageNet's, else nobody's.
        batch_size: images computed at once, by default 256; changes no image. With an adaptation,
            the images it adapts to at once; by default its own number, on a subset the smaller one.
        workers: processes which read images; 0 reads in this one.
        adaptation: how the network adapts to each set, whose images then come in a fixed random
            order.

    Returns:
        The result as JSON: accuracies of every set, corruption errors, and the metrics, each with
        its label, its normaliser and the normaliser's source. All numbers are fractions.

    Raises:
        RunError: images are missing or unreadable, the network does not fit the data, `out` holds
            results of something else, or cannot be written.
    """
    sets = sets_of(data, corruptions)
    positions, chosen = choose(data, subset=subset, draw=draw, image_list=image_list)
    whole = chosen["subset"] is None
    batch = batch_size or (adaptation.batch if whole else adaptation.small_batch) or BATCH
    adapted = {}
    if adaptation is not NONE:
        positions = positions[fixed_order(len(positions))]
        adapted = {"adaptation": {"name": adaptation.name, "batch_size": batch}}
    data.check(sets)
    name = name or type(model).__name__
    description = {
        "model": {
            "name": f"{name} + {adaptation.label}" if adapted else name,
            "weights_sha256": weights_sha256(model),
            "preprocessing": asdict(preprocessing),
            **adapted,
        },
        "data": {
            "name": data.name,
            "classes": data.classes,
            "images": len(data.labels),
            **chosen,
            **data.identity,
        },
    }
    description = json.loads(json.dumps(description))
    normaliser = ALEXNET if data.is_imagenet else None
    if reference is not None:
        normaliser = normaliser_from(reference, description["data"])
    weight = next(model.parameters(), torch.empty(0))
    world = _world(weight.device)
    with ExitStack() as active:
        world.on_main(lambda: active.enter_context(sole_writer(out)) and None)
        world.on_main(lambda: ResultFolder(out, description, data.mark) and None)
        folder = ResultFolder(out, description, data.mark)
        active.enter_context(_eval_mode(model))
        own = sets[world.rank :: world.size]
        missing = [place for place in own if folder.read(place) is None]
        progress = active.enter_context(bar(len(own) * len(positions), "image", data.name))
        progress.initial = progress.n = (len(own) - len(missing)) * len(positions)
        for place in missing:
            progress.set_postfix_str(f"{place[0]} {place[1] or ''}", refresh=False)
            samples = data.samples(place)
            content: dict[int, int] = {}  # by the first row: a batch may be read again

            def prepare(images: Tensor, rows: Tensor, samples=samples, content=content) -> Tensor:
                content[int(rows[0])] = checksum(images)
                degraded = samples.degrade(images.to(weight.device), rows)
                return preprocessing(degraded).to(weight.dtype)  # it may be of half precision

            total = Counts(0, 0, 0)
            inputs = Batches(samples.images, positions, batch, prepare, workers)
            for logits, rows in predictions(model, inputs, adaptation):
                total += count(logits, samples.labels[rows], data.classes, place)
                progress.update(len(rows))
            folder.write(place, replace(total, content=sum(content.values())))
        world.any(False)  # all sets are there
        counts = {place: found for place in sets if (found := folder.read(place)) is not None}
        result = summarise(description, counts, normaliser)
        world.on_main(lambda: write_json(out / "result.json", result))
    return result


def count(logits: Tensor, truth: Tensor, classes: int, place: EvaluationSet) -> Counts:
    """How many of a batch are recognised.

    Raises:
        RunError: the network does not return logits for so many classes, or NaN.
    """
    if not isinstance(logits, Tensor) or logits.shape != (len(truth), classes):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise RunError(
            f"the network returned {got} for {len(truth)} images of {classes} classes, but must "
            f"return logits of the shape ({len(truth)}, {classes}). Take a network for these "
            "classes, or wrap it so that it returns its logits alone."
        )
    if logits.isnan().any():
        raise RunError(
            f"the network's logits are not numbers (NaN) in the set {place}; are these the right "
            "weights, the right mean and std, and a precision with enough range?"
        )
    truth = truth.to(logits.device)
    best = logits.topk(min(TOP, classes), dim=1).indices
    return Counts(
        images=len(truth),
        top1=int((logits.argmax(1) == truth).sum()),
        top5=int((best == truth[:, None]).sum()),
    )


def weights_sha256(model: nn.Module) -> str:
    """A fingerprint of all weights and buffers with their names, dtypes and shapes."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode meanwhile, and afterwards for each module the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _world(device: torch.device) -> World:
    """This process among those that share the sets."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return World(0, 1, device)
    # Its own group: the fastest rank may wait for longer than a backend's usual limit.
    hosts = distributed.new_group(backend="gloo", timeout=timedelta(days=7))
    return World(distributed.get_rank(), distributed.get_world_size(), device, hosts)
