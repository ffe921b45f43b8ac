"""Methods compared on a small dataset in memory: trains, evaluates, reports; see `SmallRun`."""

from dataclasses import replace
from typing import Any

from reference_training.config import SmallRun, UEMOptions
from reference_training.corruptions import frost_source
from reference_training.data.images import Dataset
from reference_training.data.samples import EvaluationSet
from reference_training.evaluation.sets import SETS
from reference_training.evaluation.trained import summarise
from reference_training.experiments import stages
from reference_training.methods.trainings import canonical
from reference_training.networks import small as networks
from reference_training.runtime import workers
from reference_training.runtime.errors import RunError, check_at_least
from reference_training.runtime.files import JsonLines, write_json
from reference_training.runtime.lock import sole_writer
from reference_training.runtime.stop import Interrupted
from reference_training.training import record


def check(run: SmallRun) -> None:
    """Raises RunError for what can be known to be wrong before anything is computed."""
    names = [canonical(name) for name in run.methods]
    if not run.methods or not run.seeds:
        raise RunError("nothing to do: give at least one of --methods and of --seeds.")
    if len(set(run.seeds)) < len(run.seeds) or len(set(names)) < len(names):
        raise RunError("a seed or a method is named twice; name each once.")
    positive = (
        "recipe.iterations recipe.batch_size pretraining.batch_size "
        "checkpoint_every evaluation_images threads jobs train_images"
    )
    check_at_least(1, run, *positive.split())
    check_at_least(0, run, "validation_images")
    check_at_least(0 if networks.has_weights(run) else 1, run, "pretraining.iterations")
    try:
        frost_source(run.frost)
    except (ValueError, FileNotFoundError) as error:
        raise RunError(f"--frost: {error}") from error
    if run.recipe.view != "crop":
        raise RunError("--recipe.view is an option of --dataset imagenet; leave it out here.")
    entries = stages.trainings_of(run)
    try:  # whatever an option is wrong about shows when a step is built
        model = networks.classifier(run, 10)
        steps = [entry.make_step(model, run.recipe, run.uem) for entry in entries]
        stages.iterations(run)
    except ValueError as error:
        raise RunError(str(error)) from error
    by_run = (s.uem and "uem" not in e.changes for s, e in zip(steps, entries, strict=True))
    if run.uem != UEMOptions() and not any(by_run):
        raise RunError(
            "--uem.* would change nothing: no method of this run takes its UEM from there; give "
            "--methods with ulfd, or write it behind the method, as ulfd@uem.blocks=2."
        )


def _check_sizes(run: SmallRun, dataset: Dataset) -> None:
    """Raises RunError unless every class has an image of what is balanced over the classes."""
    left = len(dataset.train_labels) - run.validation_images
    for name, value in (
        ("--train-images", run.train_images),
        ("--validation-images", run.validation_images or None),
        ("--evaluation-images", run.evaluation_images),
    ):
        if value is not None and value < dataset.classes:
            raise RunError(
                f"{name} is {value}, but {dataset.name} has {dataset.classes} classes; give at "
                "least one image for each."
            )
    if left < dataset.classes:
        raise RunError(
            f"--validation-images {run.validation_images} leaves {left} of "
            f"{len(dataset.train_labels)} training images; hold fewer back."
        )


def evaluate_all(run: SmallRun, pool: workers.Pool) -> list[dict[str, Any]]:
    """All lines of evaluation.jsonl; what an earlier start measured is not measured again."""
    lines = JsonLines(run.folder / "evaluation.jsonl", sealed=True)
    rows = lines.resume()
    wanted = [f"{method}/{seed}" for method in run.methods for seed in run.seeds]
    done: dict[EvaluationSet, set[str]] = {which: set() for which in SETS}
    for row in rows:
        done[row["corruption"], row["severity"]] |= row["results"].keys()
    missing = {
        which: networks
        for which, known in done.items()
        if (networks := [network for network in wanted if network not in known])
    }
    tasks = [
        pool.executor.submit(stages.measure_set, run, *which, networks)
        for which, networks in missing.items()
    ]
    for row in pool.results(tasks, skipped=len(done) - len(missing)):
        lines.append(row)
        rows.append(row)
        if pool.link.stop.is_set():
            raise Interrupted
    return rows


def _describe(run: SmallRun, dataset: Dataset) -> dict[str, Any]:
    network = networks.classifier(run, dataset.classes)
    if run.dry_run:
        networks.begin(network, run)  # says whether its weights are there
    return record.describe(
        run,
        dataset.describe(),
        frost=frost_source(run.frost),
        network=networks.description(run),
        parameters={
            "network": sum(weight.numel() for weight in network.parameters()),
            "uem": run.uem.spec(network.tapped(run.recipe.layer).channels).parameters(),
        },
    )


def execute(run: SmallRun) -> dict[str, Any]:
    """Trains, evaluates and writes the report; continues what is already in the folder.

    Returns:
        The content of metrics.json; nothing for a dry run.
    """
    check(run)
    run = replace(run, methods=tuple(map(canonical, run.methods)))
    dataset = stages.loaded(run.dataset, run.data_root, run.side)
    _check_sizes(run, dataset)
    description = _describe(run, dataset)
    print(
        f"{dataset.description}: {len(stages.evaluated(run).train_labels)} training, "
        f"{len(stages.evaluated(run).test_labels)} evaluation images\n"
        f"{networks.description(run)}; methods {', '.join(run.methods)}; seeds {run.seeds}\n"
        f"{stages.iterations(run)} iterations, then "
        f"{len(SETS)} evaluation sets; into {run.folder}"
    )
    if run.dry_run:
        return {}
    with sole_writer(run.folder):
        return _execute(run, dataset, description)


def _execute(run: SmallRun, dataset: Dataset, description: dict[str, Any]) -> dict[str, Any]:
    processes = workers.pool(run.jobs, run.threads, preload=__name__)
    with record.kept(run.folder, description), processes as pool:
        with stages.shared_pairs(run):
            pool.train(stages.tasks_of(run, dataset.classes), stages.iterations(run))
        rows = evaluate_all(run, pool)
    metrics = {
        "dataset": dataset.name,
        "evaluation_images": len(stages.evaluated(run).test_labels),
        "seeds": list(run.seeds),
        "methods": list(run.methods),
        "results": {
            method: {
                str(seed): {
                    **summarise(rows, f"{method}/{seed}"),
                    "rank_correlation": stages.rank_correlations(run, seed, method),
                }
                for seed in run.seeds
            }
            for method in run.methods
        },
    }
    write_json(run.folder / "metrics.json", metrics)
    from reference_training.reporting import pages  # the workers need none of it

    pages.write_report(run.folder, example=dataset.test_images[0])
    print(pages.terminal_table(metrics, description))
    print(f"report: {run.folder / 'report.html'}")
    return metrics
