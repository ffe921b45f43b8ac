"""The study at laptop scale as data: its parts, and the λ among which held-out images choose.

Its plans, written before the runs, are results/PLAN.md and results/PLAN_PHOTOGRAPHS.md; results/
holds what came out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reference_training.config import SHORT, Network, Pretraining, SmallRun
from reference_training.presets import PRESETS, fine_tuned

SEEDS = (0, 1, 2, 3, 4)
COMMON = replace(PRESETS["fashion-mnist-subset"], seeds=SEEDS)
LAMBDAS, SMALLER_LAMBDAS = (0.1, 0.3, 1.0, 3.0), (0.03, 0.1, 0.3, 1.0)
Candidates = Mapping[str, tuple[str, tuple[float, ...]]]
"""{what stands for it in a part's methods: (a training, the λ that it may get)}."""
CANDIDATES: Candidates = {
    "best_mse": ("feature_distillation", LAMBDAS),
    "best_ulfd": ("ulfd", SMALLER_LAMBDAS),
    "best_ulfd_beta": ("ulfd@beta=0.5", LAMBDAS),
    "best_mse_frozen": ("feature_distillation@teacher=frozen", LAMBDAS),
    "best_ulfd_frozen": ("ulfd@teacher=frozen", SMALLER_LAMBDAS),
}
REGIME = ("cross_entropy", *CANDIDATES)


def with_lambda(training: str, weight: float) -> str:
    """The training with another λ."""
    return f"{training}{',' if '@' in training else '@'}lambda={weight}"


@dataclass(frozen=True)
class Part:
    """A question, and the run that answers it; parts of the same run share its networks."""

    question: str
    methods: tuple[str, ...]
    """Trainings, and keys of `candidates`, which get their λ by the part `chosen_by`."""
    run: SmallRun = COMMON
    """Everything but the methods."""
    candidates: Candidates = field(default_factory=lambda: CANDIDATES)
    chosen_by: str = "validation"


def grid(candidates: Candidates) -> tuple[str, ...]:
    """Every candidate with every λ that it may get."""
    return tuple(
        with_lambda(name, weight) for name, weights in candidates.values() for weight in weights
    )


LOW = (0.01, 0.03, 0.1, 0.3)
PHOTOGRAPH_CANDIDATES: Candidates = {
    "best_mse": ("feature_distillation", (0.3, 1.0, 3.0, 10.0)),
    "best_official": ("ulfd@uem=official", LOW),
    "best_official_no_skip": ("ulfd@uem=official,uem.global_skip=false", LOW),
    "best_pointwise": ("ulfd@uem=default,uem.log_variance=element", LOW),
    "best_spatial": ("ulfd@uem=default,uem.log_variance=spatial", LOW),
    "best_sample": ("ulfd@uem=default", LOW),
    "best_sample_beta": ("ulfd@beta=0.5,uem=default", (0.1, 0.3, 1.0, 3.0)),
}
"""On photographs: four λ each, around the values that evidence on small images suggested."""
CIFAR10 = replace(
    PRESETS["cifar10"],
    seeds=SEEDS,
    recipe=replace(SHORT, iterations=400),
    pretraining=Pretraining(iterations=2000),
    network=Network(blocks=3),
    evaluation_images=300,
)
WIDE = (0.01, 0.03, 0.1, 0.3, 1.0)
PRETRAINED_CANDIDATES: Candidates = {
    "best_mse": ("feature_distillation", (0.3, 1.0, 3.0, 10.0, 30.0)),
    "best_official": ("ulfd@uem=official,uem.blocks=2", WIDE),
    "best_official_no_skip": ("ulfd@uem=official,uem.blocks=2,uem.global_skip=false", WIDE),
    "best_sample": ("ulfd@uem=default", WIDE),
}
"""With two of the six blocks: six are 18.8 million weights beside a network of 3.4."""
FIRST_CHOICE = (
    "feature_distillation@lambda=3",
    "ulfd@lambda=0.1,uem=official,uem.blocks=2",
    "ulfd@lambda=0.1,uem=official,uem.blocks=2,uem.global_skip=false",
    "ulfd@lambda=0.03,uem=default",
)
"""What grids of the first three λ had chosen, before the larger ones were added."""
IMAGENETTE = replace(
    PRESETS["imagenette"],
    side=96,
    seeds=SEEDS,
    recipe=replace(PRESETS["imagenette"].recipe, iterations=60),
    pretraining=replace(PRESETS["imagenette"].pretraining, iterations=60),
    evaluation_images=100,
)
HIGHER = (0.1, 0.3, 1.0, 3.0)
TINY_CANDIDATES: Candidates = {
    "best_mse": ("feature_distillation", (1.0, 3.0, 10.0, 30.0)),
    "best_official": ("ulfd@uem=official,uem.blocks=2", (0.03, 0.1, 0.3, 1.0)),
    "best_official_no_skip": ("ulfd@uem=official,uem.blocks=2,uem.global_skip=false", HIGHER),
    "best_sample": ("ulfd@uem=default", HIGHER),
}
"""Four λ each, around those that Imagenette had chosen."""
TINY_IMAGENET = replace(
    fine_tuned(PRESETS["tiny-imagenet"]),
    backbone=IMAGENETTE.backbone,
    seeds=SEEDS,
    recipe=replace(IMAGENETTE.recipe, iterations=100, batch_size=64),
    pretraining=replace(IMAGENETTE.pretraining, iterations=200, batch_size=64),
    evaluation_images=200,
)


def _chosen(
    run: SmallRun,
    name: str,
    question: str,
    candidates: Candidates,
    held_out: int,
    others: tuple[str, ...] = (),
) -> dict[str, Part]:
    """A part that chooses λ on held-out training images and a seed of its own, and its use."""
    chooser = f"{name}_validation"
    validation = replace(run, seeds=(10,), validation_images=held_out)
    return {
        chooser: Part(f"Which λ? {question}", grid(candidates), validation, candidates, chooser),
        name: Part(
            question, ("vanilla", "cross_entropy", *candidates, *others), run, candidates, chooser
        ),
    }


PARTS: Mapping[str, Part] = {
    "validation": Part(
        "Which λ for which method? On held-out training images.",
        grid(CANDIDATES),
        replace(COMMON, seeds=(10, 11), validation_images=1000),
    ),
    "chosen": Part("The common setting with the chosen λ.", REGIME),
    "paper": Part(
        "The methods of Tables 1, 2 and 5, at the paper's λ = 0.1.",
        # Sec. 4.5 and the official script's UEM too
        tuple(
            "vanilla cross_entropy cross_entropy_degraded feature_distillation ulfd ddp kd_vid "
            "qualnet ulfd_reconstruct ulfd@layer=shallow".split()
        ),
    ),
    "few_images": Part(
        "500 images for the fine-tuning, a vanilla network trained on 8,000.",
        REGIME,
        replace(COMMON, train_images=500, pretraining=Pretraining(iterations=1500)),
    ),
    "full_fashion_mnist": Part(
        "1,000 images for the fine-tuning, a vanilla network trained on 60,000.",
        REGIME,
        replace(
            COMMON,
            dataset="fashion-mnist",
            train_images=1000,
            pretraining=Pretraining(iterations=2000),
        ),
    ),
    "options": Part(
        "The options of distillation, one at a time, at the paper's λ.",
        tuple(
            "cross_entropy feature_distillation ulfd "
            # the teacher, the shape of σ
            "ulfd@teacher=self_detached ulfd@teacher=frozen feature_distillation@teacher=frozen "
            "ulfd@uem.log_variance=spatial ulfd@uem.log_variance=sample "
            # λ, the prior weight, β
            "ulfd@lambda=0.01 ulfd@lambda=0.3 ulfd@lambda=1 feature_distillation@lambda=1 "
            "ulfd@prior_weight=1 ulfd@beta=0.5 ulfd@beta=1 "
            # what the UEM costs
            "ulfd@uem.blocks=2 ulfd@uem.blocks=0 ulfd@uem.width=4 "
            "ulfd@uem.structure=pointwise".split()
        ),
    ),
    "digits": Part(
        "Another dataset: scikit-learn's digits.", REGIME, replace(PRESETS["digits"], seeds=SEEDS)
    ),
    "augmentations": Part(
        "Tables 3 and 4: augmentations instead of corruptions, and test-time adaptation.",
        tuple(
            "vanilla augmix ulfd@second=augmix cross_entropy@second=deepaugment "
            "ulfd@second=deepaugment augmix@second=deepaugment_augmix "
            "ulfd@second=deepaugment_augmix augmix@second=deepaugment_augmix+bn "
            "augmix@second=deepaugment_augmix+rpl vanilla+bn".split()
        ),
    ),
    "longer": Part(
        "A schedule of 1,000 iterations.",
        REGIME[:4],
        replace(COMMON, recipe=replace(SHORT, iterations=1000)),
    ),
    "urie": Part(
        "URIE, whose network in front of the classifier costs 17 times its training step.",
        ("cross_entropy", "urie"),
    ),
    **_chosen(CIFAR10, "cifar10", "Colour photographs, CIFAR-10.", PHOTOGRAPH_CANDIDATES, 5000),
    **_chosen(
        IMAGENETTE,
        "imagenette",
        "A network with ImageNet weights, Imagenette.",
        PRETRAINED_CANDIDATES,
        500,
        FIRST_CHOICE,
    ),
    **_chosen(
        TINY_IMAGENET,
        "tiny_imagenet",
        "A network with ImageNet weights, Tiny-ImageNet.",
        TINY_CANDIDATES,
        2000,
    ),
    "imagenette_few": Part(
        "500 images for everything, a network with ImageNet weights; λ as chosen on all images.",
        ("vanilla", "cross_entropy", *PRETRAINED_CANDIDATES),
        replace(IMAGENETTE, train_images=500),
        PRETRAINED_CANDIDATES,
        "imagenette_validation",
    ),
}
SHOW_UNCERTAINTY = (
    "options",
    "paper",
    "augmentations",
    "cifar10",
    "imagenette",
    "tiny_imagenet",
)
"""Parts of which results/ keeps what the UEM says; of the others top-1 alone."""
