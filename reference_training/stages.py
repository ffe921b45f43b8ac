"""The stages of a run: for each seed the vanilla network, then every method that starts from it."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reference_training import checkpoint, engine, evaluate, workers
from reference_training.config import Run
from reference_training.data import load
from reference_training.data.pairs import Pairs
from reference_training.errors import RunError
from reference_training.evaluate import Trained
from reference_training.methods import METHODS
from reference_training.networks import ResNet
from reference_training.schedule import Schedule, cosine, stepwise
from reference_training.state import below

VANILLA = "vanilla"
MODEL = "step.model."


def methods_of(run: Run) -> list[str]:
    """What is trained for each seed, in order."""
    return [VANILLA, *(method for method in run.methods if method != VANILLA)]


def schedule_of(run: Run, method: str) -> Schedule:
    """The length and learning rates of a method's training."""
    if method == VANILLA:
        first = run.pretraining
        return Schedule(first.iterations, first.learning_rate, cosine)
    recipe = run.recipe
    factor = stepwise(recipe.milestones)
    return Schedule(recipe.iterations, recipe.learning_rate, factor, recipe.weight_decay)


def iterations(run: Run) -> int:
    """All training iterations of the run."""
    return len(run.seeds) * sum(schedule_of(run, method).iterations for method in methods_of(run))


def folder_of(run: Run, seed: int, method: str) -> Path:
    """Where a stage keeps its checkpoints and losses."""
    return run.folder / f"seed-{seed}" / method


def _weights(run: Run, seed: int, method: str, prefix: str) -> dict[str, Tensor]:
    """The weights below `prefix` in a stage's newest checkpoint."""
    point = checkpoint.read_latest(folder_of(run, seed, method))
    if point is None:
        raise RunError(f"{folder_of(run, seed, method)} has no checkpoint; was it deleted?")
    return below(prefix, point.tensors)


def _model(run: Run, classes: int) -> ResNet:
    return ResNet(run.network, classes).to(memory_format=torch.channels_last)


def train_seed(run: Run, seed: int) -> None:
    """Trains all stages of one seed, from where they were left; a task of a worker."""
    link = workers.shared()
    dataset = load(run.dataset, run.data_root)
    for method in methods_of(run):
        torch.manual_seed(seed)
        model = _model(run, dataset.classes)
        if method != VANILLA:
            model.load_state_dict(_weights(run, seed, VANILLA, MODEL))
        step = METHODS[method].make_step(model, run.recipe, run.uem)
        size = (run.pretraining if method == VANILLA else run.recipe).batch_size
        pairs = Pairs(
            dataset,
            batch_size=size,
            seed=seed,
            degrades=METHODS[method].degrades,
            frost=run.frost,
        )
        engine.train(
            step.to(memory_format=torch.channels_last),
            pairs,
            schedule_of(run, method),
            folder=folder_of(run, seed, method),
            checkpoint_every=run.checkpoint_every,
            link=link,
        )


@lru_cache(maxsize=1)
def _networks(run: Run, classes: int) -> tuple[Trained, ...]:
    """The trained networks of a run, in eval mode; loaded once in each worker."""
    networks = []
    for method in run.methods:
        for seed in run.seeds:
            step = METHODS[method].make_step(_model(run, classes), run.recipe, run.uem)
            step.load_state_dict(_weights(run, seed, method, "step."))
            step.to(memory_format=torch.channels_last).eval()
            networks.append(Trained(f"{method}/{seed}", step.model, step.uem, ResNet.feature_layer))
    return tuple(networks)


@lru_cache(maxsize=1)
def _test_set(run: Run) -> tuple[Tensor, Tensor, int]:
    dataset = load(run.dataset, run.data_root)
    return *evaluate.test_images(dataset, run.evaluation_images), dataset.classes


def measure_set(run: Run, name: str, severity: int) -> dict[str, Any]:
    """One line of evaluation.jsonl: every network on one set; a task of a worker."""
    images, labels, classes = _test_set(run)
    shown = evaluate.degraded(images, name, severity, run.frost)
    results = {
        trained.name: evaluate.measure(trained, shown, labels)
        for trained in _networks(run, classes)
    }
    return {"corruption": name, "severity": severity, "results": results}
