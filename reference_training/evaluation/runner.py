"""`evaluate_corruptions`: any classifier on every (corruption, severity), resumable after each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from reference_training.corruption_error import ALEXNET
from reference_training.corruptions import SEVERITIES
from reference_training.data.samples import EvaluationData, EvaluationSet
from reference_training.errors import RunError
from reference_training.evaluation.loading import Preprocessing, batches
from reference_training.evaluation.results import TOP, Counts, ResultFolder
from reference_training.evaluation.sets import chosen_corruptions, subset_positions
from reference_training.evaluation.summary import normaliser_from, summarise
from reference_training.files import write_json
from reference_training.workers import bar


def evaluate_corruptions(
    model: nn.Module,
    data: EvaluationData,
    *,
    out: Path,
    preprocessing: Preprocessing,
    name: str | None = None,
    corruptions: Sequence[str] = ("all",),
    subset: int | None = None,
    reference: Path | None = None,
    batch_size: int = 256,
    workers: int = 0,
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
        subset: evaluate on so many images only, balanced over the classes; see
            `subset_positions`. Named in every label, and kept apart from other results.
        reference: result.json of the network by whose errors to normalise, on the same images; by
            default AlexNet's published errors where the images are ImageNet's, else nobody's.
        batch_size: images computed at once; changes no image.
        workers: processes which read images; 0 reads in this one.

    Returns:
        The result as JSON: accuracies of every set, corruption errors, and the metrics, each with
        its label, its normaliser and the normaliser's source. All numbers are fractions.

    Raises:
        RunError: images are missing or unreadable, the network does not fit the data, `out` holds
            results of something else, or cannot be written.
    """
    names = chosen_corruptions(corruptions)
    sets: list[EvaluationSet] = [(clean, 0) for clean in data.clean_sets]
    sets += [(corruption, severity) for corruption in names for severity in SEVERITIES]
    positions = torch.arange(len(data.labels))
    if subset is not None:
        positions = subset_positions(data.labels, subset)
    data.check(sets)
    description = {
        "model": {
            "name": name or type(model).__name__,
            "weights_sha256": weights_sha256(model),
            "preprocessing": asdict(preprocessing),
        },
        "data": {
            "name": data.name,
            "classes": data.classes,
            "images": len(data.labels),
            "subset": subset,
            **data.identity,
        },
    }
    description = json.loads(json.dumps(description))
    normaliser = ALEXNET if data.is_imagenet else None
    if reference is not None:
        normaliser = normaliser_from(reference, description["data"])
    ranks = _Ranks.here()
    if ranks.rank == 0:
        ResultFolder(out, description, data.mark)
    ranks.meet()
    folder = ResultFolder(out, description, data.mark)

    own = sets[ranks.rank :: ranks.world]
    missing = [one for one in own if folder.read(one) is None]
    images_in_all = len(own) * len(positions)
    device = next(model.parameters(), torch.empty(0)).device
    with (
        bar(images_in_all, "image", data.name) as progress,
        _eval_mode(model),
    ):
        progress.initial = progress.n = images_in_all - len(missing) * len(positions)
        for one in missing:
            progress.set_postfix_str(f"{one[0]} {one[1] or ''}", refresh=False)
            samples = data.samples(one)
            loader = batches(samples.images, positions, batch_size, workers)
            total = Counts(0, 0, 0)
            for images, rows in loader:
                shown = samples.degrade(images.to(device), rows)
                truth = samples.labels[rows].to(device)
                total += count(model, preprocessing(shown), truth, data.classes, one)
                progress.update(len(rows))
            folder.write(one, total)
    ranks.meet()

    counts = {one: found for one in sets if (found := folder.read(one)) is not None}
    result = summarise(description, counts, normaliser)
    if ranks.rank == 0:
        write_json(out / "result.json", result)
    return result


@torch.no_grad()
def count(model: nn.Module, x: Tensor, truth: Tensor, classes: int, one: EvaluationSet) -> Counts:
    """How many of a batch are recognised.

    Raises:
        RunError: the network does not return logits for so many classes, or NaN.
    """
    logits = model(x)
    _check_logits(logits, len(x), classes, one)
    best = logits.topk(min(TOP, classes), dim=1).indices
    return Counts(
        images=len(x),
        top1=int((logits.argmax(1) == truth).sum()),
        top5=int((best == truth[:, None]).sum()),
    )


def _check_logits(logits: Any, images: int, classes: int, one: EvaluationSet) -> None:
    if not isinstance(logits, Tensor) or logits.shape != (images, classes):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise RunError(
            f"the network returned {got} for {images} images of {classes} classes, but must "
            f"return logits of the shape ({images}, {classes}). Take a network for these classes, "
            "or wrap it so that it returns its logits alone."
        )
    if logits.isnan().any():
        raise RunError(
            f"the network's logits are not numbers (NaN) in the set {one}; are these the right "
            "weights, the right mean and std, and a precision with enough range?"
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


@dataclass(frozen=True)
class _Ranks:
    """This process's share of the sets, and a meeting point for all."""

    rank: int = 0
    world: int = 1
    group: Any = None

    @classmethod
    def here(cls) -> _Ranks:
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        # Its own group: the fastest rank may wait for longer than a backend's usual limit.
        group = distributed.new_group(backend="gloo", timeout=timedelta(days=7))
        return cls(distributed.get_rank(), distributed.get_world_size(), group)

    def meet(self) -> None:
        if self.world > 1:
            distributed.barrier(self.group)
