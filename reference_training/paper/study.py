"""The study at laptop scale as data: its parts, and the λ among which `validation` chooses.

Its plan, written before the runs, is results/PLAN.md; results/ holds what came out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from reference_training.config import PRESETS, SHORT, Pretraining, SmallRun

SEEDS = (0, 1, 2, 3, 4)
COMMON = replace(PRESETS["fashion-mnist-subset"], seeds=SEEDS)
LAMBDAS, SMALLER_LAMBDAS = (0.1, 0.3, 1.0, 3.0), (0.03, 0.1, 0.3, 1.0)
CANDIDATES: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "best_mse": ("feature_distillation", LAMBDAS),
    "best_ulfd": ("ulfd", SMALLER_LAMBDAS),
    "best_ulfd_beta": ("ulfd@beta=0.5", LAMBDAS),
    "best_mse_frozen": ("feature_distillation@teacher=frozen", LAMBDAS),
    "best_ulfd_frozen": ("ulfd@teacher=frozen", SMALLER_LAMBDAS),
}
"""{what stands for it in a part's methods: (a training, the λ that it may get)}."""
REGIME = ("cross_entropy", *CANDIDATES)


def with_lambda(training: str, weight: float) -> str:
    """The training with another λ."""
    return f"{training}{',' if '@' in training else '@'}lambda={weight}"


@dataclass(frozen=True)
class Part:
    """A question, and the run that answers it; parts of the same run share its networks."""

    question: str
    methods: tuple[str, ...]
    """Trainings, and keys of `CANDIDATES`, which get the λ chosen by `validation`."""
    run: SmallRun = COMMON
    """Everything but the methods."""


PARTS: Mapping[str, Part] = {
    "validation": Part(
        "Which λ for which method? On held-out training images.",
        tuple(
            with_lambda(name, weight) for name, weights in CANDIDATES.values() for weight in weights
        ),
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
}
