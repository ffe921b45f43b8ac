"""The study at laptop scale: `python -m reference_training.experiments.study` makes results/ again.

Its plan, written before the runs, is results/PLAN.md; each part is one run, and all parts continue
where they were left. `--tables` makes the page from the data that is there.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import tyro

from reference_training.config import PRESETS, SHORT, Pretraining, Run
from reference_training.experiments import small
from reference_training.methods.trainings import canonical
from reference_training.reporting import study_page
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json, write_atomically, write_json
from reference_training.runtime.stop import Interrupted

SEEDS = (0, 1, 2, 3, 4)
COMMON = replace(PRESETS["fashion-mnist-subset"], seeds=SEEDS)

MSE, ULFD = "feature_distillation", "ulfd"
CANDIDATES = {  # of `validation`, by what stands for them in the regimes
    "best_mse": (MSE, (0.1, 0.3, 1.0, 3.0)),
    "best_ulfd": (ULFD, (0.03, 0.1, 0.3, 1.0)),
    "best_ulfd_beta": (f"{ULFD}@beta=0.5", (0.1, 0.3, 1.0, 3.0)),
    "best_mse_frozen": (f"{MSE}@teacher=frozen", (0.1, 0.3, 1.0, 3.0)),
    "best_ulfd_frozen": (f"{ULFD}@teacher=frozen", (0.03, 0.1, 0.3, 1.0)),
}


def with_lambda(name: str, weight: float) -> str:
    """The training `name` with another λ."""
    return canonical(f"{name}{',' if '@' in name else '@'}lambda={weight}")


PAPER = tuple(
    # Tables 1, 2 and 5, Sec. 4.5, and the official script's UEM
    "vanilla cross_entropy cross_entropy_degraded feature_distillation ulfd "
    "ddp kd_vid qualnet ulfd_reconstruct ulfd@layer=shallow".split()
)
AUGMENTATIONS = tuple(  # Tables 3 and 4
    "vanilla augmix ulfd@second=augmix cross_entropy@second=deepaugment ulfd@second=deepaugment "
    "augmix@second=deepaugment_augmix ulfd@second=deepaugment_augmix "
    "augmix@second=deepaugment_augmix+bn augmix@second=deepaugment_augmix+rpl vanilla+bn".split()
)
OPTIONS = tuple(
    "cross_entropy feature_distillation ulfd "
    # the teacher, the shape of σ
    "ulfd@teacher=self_detached ulfd@teacher=frozen feature_distillation@teacher=frozen "
    "ulfd@uem.log_variance=spatial ulfd@uem.log_variance=sample "
    # λ, the prior weight, β
    "ulfd@lambda=0.01 ulfd@lambda=0.3 ulfd@lambda=1 feature_distillation@lambda=1 "
    "ulfd@prior_weight=1 ulfd@beta=0.5 ulfd@beta=1 "
    # what the UEM costs
    "ulfd@uem.blocks=2 ulfd@uem.blocks=0 ulfd@uem.width=4 ulfd@uem.structure=pointwise".split()
)


@dataclass(frozen=True)
class Part:
    """A run of the study; its methods may be names of `CANDIDATES`, which get the chosen λ."""

    question: str
    run: Run
    folder: str | None = None
    """Of the run; parts that differ in their methods alone share one, and the networks in it."""


REGIME = ("cross_entropy", *CANDIDATES)
PARTS: Mapping[str, Part] = {
    "validation": Part(
        "Which λ for which method? On held-out training images.",
        replace(
            COMMON,
            methods=tuple(
                with_lambda(name, weight)
                for name, weights in CANDIDATES.values()
                for weight in weights
            ),
            seeds=(10, 11),
            validation_images=1000,
        ),
    ),
    "chosen": Part(
        "The common setting with the chosen λ.", replace(COMMON, methods=REGIME), "common"
    ),
    "paper": Part(
        "The methods of Tables 1, 2 and 5, at the paper's λ = 0.1.",
        replace(COMMON, methods=PAPER),
        "common",
    ),
    "few_images": Part(
        "500 images for the fine-tuning, a vanilla network trained on 8,000.",
        replace(COMMON, methods=REGIME, train_images=500, pretraining=Pretraining(iterations=1500)),
    ),
    "full_fashion_mnist": Part(
        "1,000 images for the fine-tuning, a vanilla network trained on 60,000.",
        replace(
            COMMON,
            dataset="fashion-mnist",
            methods=REGIME,
            train_images=1000,
            pretraining=Pretraining(iterations=2000),
        ),
    ),
    "options": Part(
        "The options of distillation, one at a time, at the paper's λ.",
        replace(COMMON, methods=OPTIONS),
        "common",
    ),
    "digits": Part(
        "Another dataset: scikit-learn's digits.",
        replace(PRESETS["digits"], methods=REGIME, seeds=SEEDS),
    ),
    "augmentations": Part(
        "Tables 3 and 4: augmentations instead of corruptions, and test-time adaptation.",
        replace(COMMON, methods=AUGMENTATIONS),
        "common",
    ),
    "longer": Part(
        "A schedule of 1,000 iterations.",
        replace(COMMON, methods=REGIME[:4], recipe=replace(SHORT, iterations=1000)),
    ),
    "urie": Part(
        "URIE, whose network in front of the classifier costs 17 times its training step.",
        replace(COMMON, methods=("cross_entropy", "urie")),
        "common",
    ),
}


@dataclass(frozen=True)
class Study:
    """Which parts, and where everything is kept."""

    parts: tuple[str, ...] = tuple(PARTS)
    results: Path = Path("results")
    """Receives the data of each part, and the page."""
    runs: Path = Path("runs/study")
    """Keeps the networks, from which a killed study continues."""
    data_root: Path | None = None
    """The folder with Fashion-MNIST's files, for full_fashion_mnist."""
    jobs: int | None = None
    """Worker processes; all cores by default."""
    tables: bool = False
    """Only make the page again, from the data that is there."""


def chosen_weights(validation: Mapping[str, Any]) -> dict[str, float]:
    """{candidate: the λ with the best mean seen top-1}, from the data of the part `validation`."""

    def score(name: str) -> float:
        return fmean(map(study_page.seen, validation["results"][name].values()))

    return {
        candidate: max(weights, key=lambda weight: score(with_lambda(name, weight)))
        for candidate, (name, weights) in CANDIDATES.items()
    }


def resolved(methods: Sequence[str], weights: Mapping[str, float]) -> tuple[str, ...]:
    """The methods, with the chosen λ in the place of the candidates' names."""
    return tuple(
        with_lambda(CANDIDATES[name][0], weights[name]) if name in CANDIDATES else name
        for name in methods
    )


def execute(study: Study) -> None:
    """Runs the parts that are asked for, keeps their data, and makes the page."""
    unknown = set(study.parts) - set(PARTS)
    if unknown:
        raise RunError(f"unknown parts {sorted(unknown)}; use some of {list(PARTS)}.")
    for name in () if study.tables else study.parts:
        _run(study, name)
    found = {
        name: read_json(path)
        for name in PARTS
        if (path := study.results / f"{name}.json").is_file()
    }
    if not found:
        raise RunError(f"{study.results} holds no data yet; run the study without --tables first.")
    weights = chosen_weights(found["validation"]) if "validation" in found else {}
    questions = {name: part.question for name, part in PARTS.items()}
    conclusions = study.results / "CONCLUSIONS.md"
    read = conclusions.read_text(encoding="utf-8") if conclusions.is_file() else ""
    page = study_page.page(found, questions, weights, read.strip())
    write_atomically(study.results / "README.md", page.encode())
    print(f"the page: {study.results / 'README.md'}")


def _run(study: Study, name: str) -> None:
    part = PARTS[name]
    run = replace(part.run, out=study.runs / (part.folder or name), jobs=study.jobs)
    if run.dataset == "fashion-mnist":
        if study.data_root is None:
            print(
                f"left out: {name} needs the files of Fashion-MNIST in --data-root (Debian: "
                "dataset-fashion-mnist)",
                file=sys.stderr,
            )
            return
        run = replace(run, data_root=study.data_root)
    if not set(run.methods).isdisjoint(CANDIDATES):
        path = study.results / "validation.json"
        if not path.is_file():
            raise RunError(f"{name} needs the λ chosen by the part validation; run that first.")
        run = replace(run, methods=resolved(run.methods, chosen_weights(read_json(path))))
    metrics = small.execute(run)
    description = read_json(run.folder / "run.json")
    facts = {key: description[key] for key in ("versions", "git", "frost", "parameters")}
    seconds = description["wall_seconds"]
    write_json(study.results / f"{name}.json", metrics | {"run": facts, "wall_seconds": seconds})


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    study = tyro.cli(
        Study,
        prog="python -m reference_training.experiments.study",
        args=arguments,
        description=__doc__,
    )
    try:
        execute(study)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt):
        print("\ninterrupted; give the same command again to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
