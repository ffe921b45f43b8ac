"""A whole table or figure of the paper on ImageNet: trains and evaluates its networks in turn.

Every network is a run of its own (`full_scale`), continued where it was left; what two tables need
is trained once. Give the same command again until all are done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reference_training.config import ImageNetRun
from reference_training.data.imagenet_c import IMAGENET_C
from reference_training.data.images import balanced
from reference_training.data.photographs import open_photographs
from reference_training.data.samples import EvaluationData
from reference_training.data.views import MEAN, STD
from reference_training.evaluation.adaptation import NONE
from reference_training.evaluation.corruption_error import ALEXNET
from reference_training.evaluation.results import differences
from reference_training.evaluation.sets import DRAWS, choose
from reference_training.evaluation.summary import label_of
from reference_training.evaluation.trained import Trained
from reference_training.experiments import imagenet
from reference_training.experiments.job import STAGES, TRAIN, resolve
from reference_training.experiments.paper_figures import FIGURES, Kind, Material
from reference_training.methods.trainings import training
from reference_training.networks.preprocessing import Preprocessing
from reference_training.paper.experiments import EXPERIMENTS, ROWS, Row
from reference_training.reporting.blocks import Block, Code, Heading, Paragraph, Table
from reference_training.reporting.measures import Json, Results
from reference_training.reporting.pages import write_page
from reference_training.reporting.result_tables import table
from reference_training.runtime import ranks
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json, write_json
from reference_training.runtime.image_files import some
from reference_training.training import export, record

OUT = Path("runs") / "paper-imagenet"
IMAGES = 50_000
"""Of ImageNet's validation set."""
SAMPLE, BATCH = 500, 64
"""Images on which a figure compares features, 3 MB each, and how many at once."""
Trainings = Mapping[tuple[str, str], ImageNetRun]
"""{(training, the paper's backbone): its run}."""


def rows(name: str) -> list[str]:
    """The rows of a table or figure, or of all, as "table1/ulfd", after the stages that they need.

    A network of several tables goes by its first row, so that another table finds it trained.
    """
    wanted = EXPERIMENTS if name == "all" else (name,)
    first = {(row.training, row.arch): one for one, row in reversed([*ROWS.items()])}
    networks = [row for table in wanted for row in EXPERIMENTS[table].rows]
    needed = (training(row.training).method.needs for row in networks)
    stages = [f"{STAGES}{need}" for need in needed if need is not None]
    return list(dict.fromkeys([*stages, *(first[row.training, row.arch] for row in networks)]))


def execute(runs: Sequence[ImageNetRun]) -> None:
    """Trains and evaluates each network, writes what was asked for, and other finished tables.

    Raises:
        RunError: one network stands in for two, a row cannot be trained, or the rows were evaluated
            on different images.
    """
    names = [run.experiment for run in runs]
    asked = {name: one for name, one in EXPERIMENTS.items() if names in (rows(name), rows("all"))}
    figures = {n: FIGURES[one.figure] for n, one in asked.items() if one.figure is not None}
    tables = any(one.columns for one in asked.values())
    archs = {ROWS[run.experiment].arch for run in runs if not _is_stage(run)}
    for run in runs:
        if run.arch != ROWS[run.experiment].arch and len(archs) > 1:
            raise RunError(
                f"--arch {run.arch} would stand for both networks of the table, {archs}, and train "
                f"each row of it twice; leave it out, or name one row, as {run.experiment}."
            )
    given, plan = runs[0].out, runs[0].plan
    runs = [_placed(run, runs) for run in runs]
    for job in () if plan else map(resolve, runs):  # the last is not to fail after weeks of others
        imagenet.check(job)
        imagenet.check_training(job)
    shown: list[EvaluationData] = []
    with ranks.join(runs[0].device) as world:
        if figures and not plan:
            world.on_main(lambda: shown.append(_images(runs[0], figures)))
        for run in runs:  # a stage is in no table, so nobody asks how good it is
            evaluate = tables or run.evaluate
            imagenet.execute(replace(run, evaluate=evaluate and not (plan or _is_stage(run))))
    if plan or not ranks.is_main():
        return
    out = OUT if given is None else given
    trained = {(ROWS[run.experiment].training, ROWS[run.experiment].arch): run for run in runs}
    for name, experiment in EXPERIMENTS.items():
        found = {row.key: _evaluated(row, trained) for row in experiment.rows}
        if not experiment.columns or not all(found.values()):
            continue
        made = _table(name, {key: row for key, row in found.items() if row is not None})
        print("\n" + made.terminal())
        write_page(out / name, experiment.title, [Heading(experiment.title, 1), made])
    for name, kind in figures.items():
        _draw(name, kind, trained, shown[0], out / name)


def _images(run: ImageNetRun, figures: Mapping[str, Kind]) -> EvaluationData:
    """The images of figures, found whole before the first network is trained."""
    data = imagenet.evaluation_data(run, open_photographs(run.data_root / TRAIN))
    choose(data, subset=run.evaluation_subset)
    data.check([place for kind in figures.values() for place in kind.sets])
    return data


def _draw(name: str, kind: Kind, trained: Trainings, data: EvaluationData, folder: Path) -> None:
    """Writes a figure's page, and figure.json, both of which say what it was drawn from."""
    experiment = EXPERIMENTS[name]
    jobs = {row: resolve(trained[row.training, row.arch]) for row in experiment.rows}
    first = jobs[experiment.rows[0]]
    run, device = first.run, ranks.choose_device(first.run.device)
    preprocessing = Preprocessing(MEAN, STD, run.crop)

    def network(row: Row) -> Trained:
        step = jobs[row].make_step(data.classes)
        export.read(jobs[row].run.folder / "export", step)
        step.to(device).eval()
        layer = None if step.uem is None else step.layer
        return Trained(row.training, step.model, step.uem, layer)

    evaluated, _ = choose(data, subset=run.evaluation_subset)
    material = Material(
        network=network,
        vanilla=lambda: imagenet.beginning(first, data.classes)[0].to(device).eval(),
        data=data,
        preprocess=preprocessing,
        evaluated=evaluated,
        sample=balanced(data.labels, min(SAMPLE, len(evaluated))),
        batch=BATCH,
        seed=run.seed,
        device=device,
        workers=run.workers,
    )
    drawn = kind.draw(experiment, material)
    total = len(data.labels)
    seen = {"name": data.name, "images": total, **data.identity}
    seen["subset"] = None if drawn.images == total else drawn.images
    facts = {"label": label_of(seen), "data": seen, "preprocessing": asdict(preprocessing)}
    write_json(folder / "figure.json", {**drawn.numbers, **facts})
    said = (
        f"Drawn from {label_of(seen)}, at {run.crop} x {run.crop} pixels, normalised by the mean "
        f"{MEAN} and deviation {STD}. Network: {run.arch}, trained from --weights {run.weights}. "
        f"Frost overlays in training: {run.frost}. "
        + _recipes({row.key: job.run for row, job in jobs.items()})
    )
    blocks: list[Block] = [Heading(experiment.title, 1), *drawn.blocks, Paragraph(said)]
    blocks += [Heading("Make it again"), Code(record.command())]
    write_page(folder / "page", experiment.title, blocks)
    print(f"{name}: {folder / 'page.html'}")


def _is_stage(run: ImageNetRun) -> bool:
    return run.experiment.startswith(STAGES)


@dataclass(frozen=True)
class _Evaluated:
    """A row's network, and the result.json of its evaluations: of all images, and of each draw."""

    run: ImageNetRun
    whole: Json
    draws: Sequence[Json]

    @property
    def seeds(self) -> Results:
        """As `result_tables` reads them."""
        draws = [_accuracies(draw) for draw in self.draws]
        return {str(self.run.seed): {**_accuracies(self.whole), "draws": draws}}


def _evaluated(row: Row, trained: Trainings) -> _Evaluated | None:
    """A row's evaluations; None if they are not there."""
    run = trained.get((row.training, row.arch))
    if run is None:
        return None
    folders = [
        imagenet.evaluation_folder(run, row.adaptation or NONE.name, draw)
        for draw in (None, *range(DRAWS))
    ]
    whole, *draws = (
        read_json(path) if (path := folder / "result.json").is_file() else None
        for folder in folders
    )
    return whole and _Evaluated(run, whole, [draw for draw in draws if draw is not None])


def _accuracies(result: Json) -> dict[str, Any]:
    top1: Mapping[str, Json] = result["top1"]
    # The official test squashes clean images to the input size.
    squashed = next((at for name, at in top1["clean"].items() if "squash" in name), None)
    return {"clean": squashed, "corruptions": top1["corruptions"]}


def _table(name: str, found: Mapping[str, _Evaluated]) -> Table:
    """A table, which says what its rows were evaluated on, beside the paper's where it is that."""
    experiment = EXPERIMENTS[name]
    _check_same_images(name, found)
    data = next(iter(found.values())).whole
    normaliser = data["metrics"]["mce"]["normaliser"]
    networks = {row.arch: found[row.key].run.arch for row in experiment.rows}
    stand_ins = [key for key, row in found.items() if row.run.deepaugment_stand_in]
    why = _not_the_papers(data, networks, stand_ins)
    if normaliser is None:  # no errors are known by which to divide
        columns = tuple("error" if key == "mce" else key for key in experiment.columns)
        experiment = replace(experiment, columns=columns)
    everyone = {seed: ALEXNET.errors for row in found.values() for seed in row.seeds}
    frosts = " and ".join(sorted({row.run.frost for row in found.values()}))
    said = (
        f"Evaluated on {data['label']}. Frost overlays in training: {frosts}.",
        _recipes({key: row.run for key, row in found.items()}),
        *([f"A random network was DeepAugment: {', '.join(stand_ins)}."] if stand_ins else []),
        *([f"The paper's numbers are left out: {why}."] if why else []),
    )
    return table(
        experiment,
        {key: row.seeds for key, row in found.items()},
        {row.arch: everyone for row in experiment.rows},
        networks=networks,
        dataset=data["data"]["name"],
        beside="nothing" if why else "number",
        said=said,
    )


def _recipes(runs: Mapping[str, ImageNetRun]) -> str:
    """By whose recipes the rows of a table or figure were trained, and from which weights."""
    names = {key: resolve(run).recipes for key, run in runs.items()}
    shared = [name for name in next(iter(names.values())) if all(name in n for n in names.values())]
    recipes = {key: (shared or own)[0] for key, own in names.items()}
    weights = {key: run.weights for key, run in runs.items()}
    return f"Recipes: {_grouped(recipes)}. Weights at first: {_grouped(weights)}."


def _grouped(values: Mapping[str, str]) -> str:
    """Each value, with the rows that have it."""
    rows: dict[str, list[str]] = {}
    for key, value in values.items():
        rows.setdefault(value, []).append(key)
    return "; ".join(f"{value} ({', '.join(keys)})" for value, keys in rows.items())


def _check_same_images(name: str, found: Mapping[str, _Evaluated]) -> None:
    """Raises RunError for rows that were evaluated on different images, or prepared differently."""
    (first, base), *others = found.items()
    for key, row in others:
        for one, other in zip((base.whole, *base.draws), (row.whole, *row.draws), strict=False):
            changes = [*differences(_seen(one), _seen(other))]
            if changes:
                raise RunError(
                    f"the rows {first} and {key} of {name} were evaluated on different images: "
                    f"{some(changes)}. Delete the folder evaluation in {base.run.folder} or "
                    f"{row.run.folder}, and give the same command again."
                )


def _seen(result: Json) -> dict[str, Any]:
    """What the network saw: the images by their description and content, and their preparation."""
    return {**result["data"], "content": result["content"], **result["model"]["preprocessing"]}


def _not_the_papers(
    result: Json, networks: Mapping[str, str], stand_ins: Sequence[str]
) -> str | None:
    """Why a result cannot be compared with the paper's numbers; None if it can.

    Args:
        result: a row's.
        networks: {the paper's: the one in its place}.
        stand_ins: the rows without DeepAugment's own images.
    """
    data, by = result["data"], result["metrics"]["mce"]["normaliser"]
    whole = data["subset"] is None and data["images"] == IMAGES
    reasons = {
        "these are not the published ImageNet-C": data.get("published") != IMAGENET_C.name,
        f"mCE is not normalised by {ALEXNET.name}": by is None or by["name"] != ALEXNET.name,
        f"these are not all {IMAGES} images": not whole,
        "DeepAugment's own images were not there": bool(stand_ins),
        "this is another network": any(ours != theirs for theirs, ours in networks.items()),
    }
    return "; ".join(reason for reason, holds in reasons.items() if holds) or None


def _placed(run: ImageNetRun, runs: Sequence[ImageNetRun]) -> ImageNetRun:
    """The run in a folder of its own, with what the table has for such rows, as their stage."""
    if not resolve(run).deepaugmented:
        run = replace(run, deepaugment_roots=(), deepaugment_stand_in=False)
    if run.out is not None:
        run = replace(run, out=run.out / replace(run, out=None).folder.name)
    stage = resolve(run).stage
    if stage is None or run.needed is not None:
        return run
    stage = next(other for other in runs if other.experiment == stage.experiment)
    return replace(run, needed=_placed(stage, runs).folder / "export" / export.MODEL)
