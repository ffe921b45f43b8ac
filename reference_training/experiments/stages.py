"""The stages of a run: networks that begin from nothing, then every training that needs them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reference_training.config import SmallRun
from reference_training.corruptions import CorruptionOptions
from reference_training.data import load
from reference_training.data.images import Dataset, held_out, training_subset
from reference_training.data.pairs import Pairs
from reference_training.data.samples import InMemory
from reference_training.evaluation.on_the_fly import OnTheFly
from reference_training.evaluation.trained import (
    CALIBRATED,
    Trained,
    degraded,
    measure,
    test_images,
)
from reference_training.methods.base import VANILLA
from reference_training.methods.trainings import Training, network_of, training
from reference_training.networks import small
from reference_training.runtime import workers
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import JsonLines
from reference_training.training import checkpoint
from reference_training.training.checkpoint import STEP, strip_prefix
from reference_training.training.loop import TrainingLoop
from reference_training.training.schedule import Schedule, cosine, recipe_schedule

MODEL, RANKS = f"{STEP}model.", "rank_correlation"


def trainings_of(run: SmallRun) -> list[Training]:
    """What is trained for each seed, vanilla always, each after what it needs."""
    trainings: dict[str, Training] = {}
    waiting = [training(VANILLA), *(network_of(name)[0] for name in run.methods)]
    for entry in waiting:  # which grows meanwhile
        trainings[entry.name] = entry
        waiting += entry.before
    sorter = TopologicalSorter(
        {entry.name: [other.name for other in entry.before] for entry in waiting}
    )
    return [trainings[name] for name in sorter.static_order()]


def tasks_of(run: SmallRun, classes: int) -> dict[workers.Key, workers.TrainingTask]:
    """Every training of every seed; one is as dear as it has iterations and weights."""
    model = small.classifier(run, classes)
    tasks = {}
    for entry in trainings_of(run):
        step = entry.make_step(model, run.recipe, run.uem)
        weights = sum(weight.numel() for weight in step.parameters())
        for seed in run.seeds:
            tasks[entry.name, seed] = workers.TrainingTask(
                (train, run, seed, entry.name),
                [(other.name, seed) for other in entry.before],
                cost=schedule_of(run, entry).iterations * weights,
            )
    return tasks


def schedule_of(run: SmallRun, wanted: Training) -> Schedule:
    """The length and learning rates of a training."""
    if wanted.method.start is None:
        first = run.pretraining
        return Schedule(first.iterations, first.learning_rate, cosine)
    return recipe_schedule(wanted.recipe(run.recipe))


def iterations(run: SmallRun) -> int:
    """All training iterations of the run."""
    return len(run.seeds) * sum(schedule_of(run, each).iterations for each in trainings_of(run))


def folder_of(run: SmallRun, seed: int, name: str) -> Path:
    """Where a stage keeps its checkpoints and losses."""
    return run.folder / f"seed-{seed}" / name


def done(run: SmallRun, seed: int, wanted: Training) -> int:
    """The iterations that a training has in its newest checkpoint."""
    return max(checkpoint.iterations(folder_of(run, seed, wanted.name)), default=0)


def _pairs_folder(run: SmallRun) -> Path:
    return run.folder / "pairs"


@contextmanager
def shared_pairs(run: SmallRun) -> Iterator[None]:
    """While active, the trainings of one seed find the images that another of them degraded."""
    shutil.rmtree(_pairs_folder(run), ignore_errors=True)  # a killed start may have left some
    try:
        yield
    finally:
        shutil.rmtree(_pairs_folder(run), ignore_errors=True)


def _weights(run: SmallRun, seed: int, name: str, prefix: str) -> dict[str, Tensor]:
    """The weights below `prefix` in a stage's newest checkpoint."""
    point = checkpoint.read_latest(folder_of(run, seed, name))
    if point is None:
        raise RunError(f"{folder_of(run, seed, name)} has no checkpoint; was it deleted?")
    return strip_prefix(prefix, point.tensors)


loaded = lru_cache(maxsize=1)(load)


@lru_cache(maxsize=1)
def _dataset(run: SmallRun) -> Dataset:
    """The dataset, of which a run may hold some training images back for its evaluation."""
    return held_out(loaded(run.dataset, run.data_root, run.side), run.validation_images)


def _step(run: SmallRun, seed: int, wanted: Training, classes: int) -> Any:
    """A training's step at its beginning."""
    torch.manual_seed(seed)
    model = small.classifier(run, classes).to(memory_format=torch.channels_last)
    if wanted.method.start is not None:
        model.load_state_dict(_weights(run, seed, wanted.method.start, MODEL))
    elif wanted.name == VANILLA:
        small.begin(model, run)
    step = wanted.make_step(model, run.recipe, run.uem)
    if wanted.method.needs is not None:
        step.needed.load_state_dict(_weights(run, seed, wanted.method.needs, MODEL))
    return step.to(memory_format=torch.channels_last)


def train(run: SmallRun, seed: int, name: str) -> None:
    """Trains one network, from where it was left; a worker's task, to which names travel."""
    wanted, dataset = training(name), _dataset(run)
    begins = wanted.method.start is None
    pairs = Pairs(
        dataset if begins else training_subset(dataset, run.train_images),
        batch_size=(run.pretraining if begins else run.recipe).batch_size,
        seed=seed,
        second=wanted.second,
        frost=run.frost,
        second_views=wanted.method.second_views,
        kept=_pairs_folder(run) / str(seed),
    )
    TrainingLoop(
        _step(run, seed, wanted, dataset.classes),
        pairs,
        schedule_of(run, wanted),
        folder=folder_of(run, seed, wanted.name),
        checkpoint_every=run.checkpoint_every,
        link=workers.shared(),
    ).train()


def rank_correlations(run: SmallRun, seed: int, method: str) -> list[float]:
    """Spearman's of σ with (z − ẑ)² in each line of a training's log; empty without a UEM."""
    log = JsonLines(folder_of(run, seed, network_of(method)[0].name) / "metrics.jsonl")
    return [row[RANKS] for row in log.read() if RANKS in row]


@lru_cache(maxsize=64)
def trained(run: SmallRun, seed: int, method: str) -> Trained:
    """A trained network in eval mode, for its evaluation; `method` is one of the run's."""
    wanted, adaptation = network_of(method)
    step = _step(run, seed, wanted, _dataset(run).classes)
    step.load_state_dict(_weights(run, seed, wanted.name, STEP))
    layer = None if step.uem is None else step.layer
    return Trained(f"{method}/{seed}", step.eval().model, step.uem, layer, adaptation)


@lru_cache(maxsize=1)
def evaluated(run: SmallRun) -> Dataset:
    """The dataset with those test images alone that the run is evaluated on."""
    dataset = _dataset(run)
    images, labels = test_images(dataset, run.evaluation_images)
    return replace(dataset, test_images=images, test_labels=labels)


def evaluation_data(run: SmallRun) -> OnTheFly:
    """The sets that the run is evaluated on, as `measure_set` has them."""
    return OnTheFly(InMemory(evaluated(run)), CorruptionOptions(frost=run.frost))


def measure_set(
    run: SmallRun, corruption: str, severity: int, networks: list[str]
) -> dict[str, Any]:
    """One line of evaluation.jsonl: networks, each "method/seed", on one set; a worker's task."""
    clean, labels = evaluated(run).test_images, evaluated(run).test_labels
    images = degraded(clean, corruption, severity, run.frost)
    results = {}
    for network in networks:
        method, _, seed = network.rpartition("/")
        model = trained(run, int(seed), method)
        results[network] = measure(model, images, labels, clean=clean[:CALIBRATED])
    return {"corruption": corruption, "severity": severity, "results": results}
