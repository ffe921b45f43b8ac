"""A row of the paper's tables at full scale: trains, resumes and exports; see `ImageNetRun`."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from reference_training.config import ImageNetRun
from reference_training.corruptions import corrupt
from reference_training.data.class_folders import ClassFolders
from reference_training.data.imagenet_c import PublishedFolders, corruption_folders
from reference_training.data.photograph_pairs import PhotographPairs
from reference_training.data.photographs import (
    RECORD,
    AugmentedFolders,
    Photographs,
    fingerprint,
    open_photographs,
)
from reference_training.data.samples import EvaluationData
from reference_training.data.sampling import CORRUPTION_SAMPLINGS
from reference_training.data.views import MEAN, STD, VIEWS
from reference_training.evaluation import CorruptionOptions, OnTheFly, evaluate_corruptions
from reference_training.evaluation.adaptation import NONE, Adaptation
from reference_training.evaluation.sets import choose, few, sets_of
from reference_training.experiments import plan
from reference_training.experiments.job import PUBLISHED, STAGES, TRAIN, VALIDATION, Job, resolve
from reference_training.networks.backbones import load_weights
from reference_training.networks.preprocessing import Preprocessing
from reference_training.networks.resnet import Classifier
from reference_training.networks.weights import fill_from_file
from reference_training.reporting.evaluation_tables import metric_table
from reference_training.runtime import ranks
from reference_training.runtime.clock import Clock
from reference_training.runtime.errors import RunError, check_at_least, check_known
from reference_training.runtime.files import JsonLines
from reference_training.runtime.image_files import some
from reference_training.runtime.lock import sole_writer
from reference_training.runtime.ranks import World
from reference_training.runtime.stop import Interrupted, StopOnSignal, TimeLimit
from reference_training.runtime.workers import bar
from reference_training.training import export, record, tracking
from reference_training.training.loop import TrainingLoop
from reference_training.training.schedule import recipe_schedule


def check(job: Job) -> None:
    """Raises RunError for what can be known to be wrong before anything is computed."""
    run = job.run
    check_known("--corruption-sampling", run.corruption_sampling, CORRUPTION_SAMPLINGS)
    check_known("--recipe.view", run.recipe.view, VIEWS)
    check_known("--plan-gpu", run.plan_gpu, plan.GPU_GIGABYTES)
    check_at_least(1, run, "recipe.batch_size", "accumulate", "checkpoint_every", "kept", "crop")
    check_at_least(0, run, "recipe.iterations", "workers", "most_unreadable", "checkpoint_minutes")
    if run.weights != "random" and not job.method.pretrained:
        raise RunError(
            f"--weights is {run.weights!r}, but {run.experiment} starts from random weights; "
            "leave it out."
        )
    if run.resize < run.crop:
        raise RunError(f"--crop {run.crop} does not fit into --resize {run.resize}.")
    if run.deepaugment_roots and run.deepaugment_stand_in:
        raise RunError("give --deepaugment-roots or --deepaugment-stand-in, not both.")
    if run.deepaugment_roots and not job.deepaugmented:
        raise RunError(f"--deepaugment-roots: the pairs of {run.experiment} are none of these.")
    cuts = run.recipe.iterations and run.recipe.view == "resized_crop"
    if cuts and (run.data_root / RECORD).exists():
        raise RunError(
            f"{run.experiment} cuts parts of random size and shape from photographs, but those in "
            f"{run.data_root} were squeezed to squares by data.prepare; give the originals."
        )
    shards = ranks.launched() * run.accumulate
    if run.recipe.batch_size % shards:
        raise RunError(
            f"--recipe.batch-size {run.recipe.batch_size} cannot be divided among "
            f"{ranks.launched()} processes x --accumulate {run.accumulate} = {shards}."
        )
    place = ranks.choose_device(run.device)
    if run.numerics.sync_batch_norm and place.type != "cuda":
        raise RunError("--numerics.sync-batch-norm needs GPUs: torch has it for nothing else.")
    try:
        with torch.device("meta"):  # whatever an option is wrong about shows when a step is built
            job.make_step(classes=1000)
        recipe_schedule(run.recipe)
    except ValueError as error:
        raise RunError(str(error)) from error


def check_training(job: Job) -> None:
    """Raises RunError for what only training needs, and a plan lists as missing."""
    run = job.run
    tracking.check_installed(run)
    images = run.deepaugment_roots or run.deepaugment_stand_in or not run.recipe.iterations
    if job.deepaugmented and not images:
        raise RunError(f"{run.experiment} needs {plan.DEEPAUGMENT_IMAGES}.")
    try:
        _ = job.frost
    except (ValueError, FileNotFoundError) as error:
        raise RunError(f"--frost {job.run.frost}: {error}") from error
    side = job.views.corrupted
    none = torch.empty(0, 3, side, side, dtype=torch.uint8)
    try:
        corrupt(none, [], [], seeds=[], **vars(job.corruptions.options))
    except ValueError as error:
        raise RunError(f"--corruption-parameters: {error}") from error


@dataclass(frozen=True)
class Progress:
    """The training's link to its terminal: a bar on rank 0, and an end on request."""

    bar: tqdm
    stop: TimeLimit

    def advance(self, iterations: int = 1) -> None:
        self.bar.update(iterations)

    def skip(self, iterations: int) -> None:
        if iterations and ranks.is_main():
            tqdm.write(f"continuing from iteration {iterations}")
        self.bar.initial = self.bar.n = iterations


def _source(job: Job, photographs: Photographs, world: World, clock: Clock) -> PhotographPairs:
    run = job.run
    return PhotographPairs(
        photographs,
        batch_size=run.recipe.batch_size,
        seed=run.seed,
        second=job.training.second,
        views=job.views,
        channels_last=run.numerics.channels_last,
        workers=run.workers,
        most_unreadable=run.most_unreadable,
        unreadable=JsonLines(run.folder / "unreadable.jsonl"),
        world=world,
        clock=clock,
        second_views=job.method.second_views,
        deepaugmented=(
            AugmentedFolders(photographs, run.deepaugment_roots) if run.deepaugment_roots else None
        ),
    )


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """While active, only algorithms that give the same bits each time, where there are such."""
    if not wanted:
        yield
        return
    # What cuBLAS wants to know before its first call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    memory.fill_uninitialized_memory = False  # it would write all new memory twice
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        memory.fill_uninitialized_memory = filled


def _describe(job: Job, photographs: Photographs, hashes: dict[str, str]) -> dict[str, Any]:
    """The content of run.json."""
    dataset = {
        "name": "photographs",
        "train": len(photographs.labels),
        "classes": len(photographs.classes),
        "sha256": fingerprint(photographs),
        **hashes,
    }
    frost = job.frost or "none: no pair is corrupted"
    return record.describe(job.run, dataset, frost=frost, ranks=ranks.launched())


def execute(run: ImageNetRun) -> None:
    """Trains a row's network from where it was left, and exports it."""
    job = resolve(run)
    check(job)
    if run.plan:
        if ranks.is_main():
            print(plan.text(job))
        return
    check_training(job)
    with (
        _deterministic(run.deterministic),
        ranks.join(run.device) as world,
        ExitStack() as stack,
    ):
        world.on_main(lambda: stack.enter_context(sole_writer(run.folder)))
        _execute(job, world)


def beginning(job: Job, classes: int) -> tuple[Classifier, str]:
    """The network with the weights that training starts from, and their SHA-256."""
    run = job.run
    torch.manual_seed(run.seed)
    model = job.backbone.make(classes)
    return model, load_weights(model, run.arch, run.weights, run.weights_prefix)


def _step(job: Job, world: World, classes: int) -> tuple[nn.Module, dict[str, str]]:
    """What is trained, on its device, and the SHA-256 of the weights that it is given."""
    run = job.run
    model, digest = beginning(job, classes)
    hashes = {"weights_sha256": digest}
    step = job.method.make_step(model, run.recipe, run.uem)
    if job.needed_weights is not None:
        hashes["needed_sha256"] = _fill_needed(job, job.needed_weights, step.needed)
    if run.numerics.sync_batch_norm and world.size > 1:
        step = nn.SyncBatchNorm.convert_sync_batchnorm(step)
    order = torch.channels_last if run.numerics.channels_last else torch.contiguous_format
    return step.to(world.device).to(memory_format=order), hashes


def _fill_needed(job: Job, file: Path, needed: Classifier) -> str:
    """Loads the network that a method needs, from its run or as given; returns its SHA-256."""
    run, name = job.run, job.method.needs
    remedy = (
        f"Train it first, with --experiment {STAGES}{name} --arch {run.arch} --seed {run.seed}, "
        "or name its weights with --needed."
    )
    if not file.is_file():
        raise RunError(
            f"{run.experiment} needs a trained {name}, and {file} is not there. {remedy}"
        )
    kind = f"trained {name} with {needed.fc.out_features} classes"
    return fill_from_file(needed, file, kind, remedy)


def _train(job: Job, world: World, step: nn.Module, photographs: Photographs) -> None:
    run, clock, stop = job.run, Clock(world.device), TimeLimit(job.run.max_hours)
    with (
        StopOnSignal(stop),
        bar(run.recipe.iterations, "it", "training") as progress,
        tracking.observers(run, world) as observers,
    ):
        TrainingLoop(
            step,
            _source(job, photographs, world, clock),
            recipe_schedule(run.recipe),
            folder=run.folder,
            checkpoint_every=run.checkpoint_every,
            checkpoint_minutes=run.checkpoint_minutes,
            link=Progress(progress, stop),
            numerics=run.numerics,
            accumulate=run.accumulate,
            world=world,
            clock=clock,
            observers=observers,
            kept=run.kept,
        ).train()


def _execute(job: Job, world: World) -> None:
    run, started = job.run, time.monotonic()
    photographs = open_photographs(run.data_root / TRAIN)
    data = _opened(job, photographs, world) if run.evaluate else None
    classes = len(photographs.classes)
    step, hashes = _step(job, world, classes)
    with ExitStack() as stack:
        description = world.on_main(
            lambda: stack.enter_context(
                record.kept(run.folder, _describe(job, photographs, hashes))
            )
        )
        if world.main:
            tqdm.write(
                f"{run.experiment}, {run.arch}: {len(photographs.labels)} photographs of "
                f"{classes} classes, {run.recipe.iterations} iterations of "
                f"{run.recipe.batch_size} pairs on {world.size} x {world.device.type}; "
                f"into {run.folder}"
            )
        try:
            _train(job, world, step, photographs)
        except Interrupted:
            over = run.max_hours is not None and time.monotonic() - started >= 3600 * run.max_hours
            raise Interrupted("--max-hours is over" if over else "interrupted") from None
    world.on_main(lambda: export.write(run.folder / "export", step, run, description, job.heading))
    if world.main:
        tqdm.write(f"the trained network: {run.folder / 'export'}")
    if data is not None:
        model = step.get_submodule("model")
        for adaptation, draw in job.evaluations():
            result = evaluate(run, model, data, adaptation, draw)
            if world.main:
                tqdm.write(metric_table(result).terminal())


def _opened(job: Job, photographs: Photographs, world: World) -> EvaluationData:
    """The evaluation's data, found whole before the first step; what is wrong, rank 0 says."""
    found: list[EvaluationData] = []
    world.on_main(lambda: found.append(_checked(job, photographs)))
    return found[0] if world.main else evaluation_data(job.run, photographs)


def _checked(job: Job, photographs: Photographs) -> EvaluationData:
    data = evaluation_data(job.run, photographs)
    choose(data, subset=job.run.evaluation_subset)
    data.check(sets_of(data))
    return data


def evaluation_data(run: ImageNetRun, photographs: Photographs) -> EvaluationData:
    """The sets below the data root, see `evaluate`; raises RunError for what is wrong with them."""
    root, classes = run.data_root, photographs.classes
    if not (root / VALIDATION).is_dir():
        raise RunError(
            f"the evaluation needs clean images in {root / VALIDATION}; --plan says how to get "
            "ImageNet's. A row alone, as --experiment table1/ulfd, trains without them if "
            "--evaluate is left out: the same command with it goes on later."
        )
    clean = ClassFolders(root / VALIDATION, len(classes))
    if not {classes, clean.names} & {tuple(map(str, range(len(classes))))}:  # shards have numbers
        others = sorted({*classes} ^ {*clean.names})
        if others:
            raise RunError(
                f"{root / TRAIN} and {root / VALIDATION} have other classes: {some(others)} are in "
                "one of them only. Both must have the same class folders."
            )
    if (root / PUBLISHED).is_dir() and corruption_folders(root / PUBLISHED):
        return PublishedFolders(root / PUBLISHED, len(classes), clean)
    return OnTheFly(clean, CorruptionOptions(frost=run.frost), jpeg85=True)


def evaluation_folder(
    run: ImageNetRun, adaptation: str = NONE.name, draw: int | None = None
) -> Path:
    """Where the results are kept."""
    name = adaptation if draw is None else f"{adaptation}-few-{draw}"
    return run.folder / "evaluation" / name


def evaluate(
    run: ImageNetRun,
    model: nn.Module,
    data: EvaluationData,
    adaptation: Adaptation,
    draw: int | None = None,
) -> dict[str, Any]:
    """Evaluates a trained network on all sets: 96, by all ranks; continues what is there.

    The sets are the published ImageNet-C if it lies beside the training images, otherwise the
    validation images corrupted on the fly and stored as JPEG, as the published ones were.

    Args:
        run: whose network it is; its crop is the network's input size.
        model: images (B, 3, crop, crop) to logits, on its device.
        data: the sets.
        adaptation: how it adapts to each set.
        draw: of the few images of Table 4; None evaluates all.

    Raises:
        RunError: images are missing or unreadable.
    """
    return evaluate_corruptions(
        model,
        data,
        out=evaluation_folder(run, adaptation.name, draw),
        preprocessing=Preprocessing(MEAN, STD, run.crop),
        name=run.experiment,
        subset=run.evaluation_subset if draw is None else few(len(data.labels)),
        draw=draw,
        workers=run.workers,
        adaptation=adaptation,
    )
