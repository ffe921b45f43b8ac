"""Complete runs by dataset, the paper's recipe shortened to fit, and budgets of its tables."""

from dataclasses import replace
from typing import Any

from reference_training.config import PAPER, SHORT, Network, Pretraining, SmallRun

FINE_TUNING = SmallRun(
    # The largest λ that harmed a network with ImageNet weights on held-out images of neither of the
    # study's datasets (from nothing, 0.3 does harm); not the official UEM, which has several times
    # the weights of such a network.
    methods=(
        "vanilla",
        "cross_entropy",
        "feature_distillation@lambda=3",
        "ulfd@lambda=0.3,uem=default",
    ),
    backbone="timm:tf_efficientnet_lite0",
    pretrained=True,
    recipe=replace(SHORT, iterations=200, batch_size=32, learning_rate=3e-4),
    pretraining=Pretraining(iterations=100, batch_size=32, learning_rate=3e-4),
)
"""A library's network with its ImageNet weights, on photographs."""

PRESETS: dict[str, SmallRun] = {
    "fashion-mnist-subset": SmallRun(seeds=(0, 1, 2)),
    "digits": SmallRun(
        dataset="digits",
        recipe=replace(SHORT, iterations=100),
        pretraining=Pretraining(iterations=150),
    ),
    "fashion-mnist": SmallRun(
        dataset="fashion-mnist",
        recipe=replace(PAPER, iterations=4_000, batch_size=128),
        pretraining=Pretraining(iterations=5_000),
        network=Network(stem_stride=1),
        evaluation_images=10_000,
        checkpoint_every=200,
    ),
    "cifar10": SmallRun(
        dataset="cifar10",
        recipe=replace(PAPER, iterations=8_000, batch_size=128),
        pretraining=Pretraining(iterations=12_000),
        network=Network(blocks=3, stem_stride=1),
        evaluation_images=10_000,
        checkpoint_every=200,
    ),
    "tiny-imagenet": SmallRun(
        dataset="tiny-imagenet",
        side=64,
        recipe=replace(PAPER, iterations=8_000, batch_size=128),
        pretraining=Pretraining(iterations=20_000),
        network=Network(blocks=3, widths=(32, 64, 128)),
        evaluation_images=10_000,
        checkpoint_every=200,
    ),
    "imagenette": replace(
        FINE_TUNING,
        dataset="imagenette",
        side=160,
        methods=(  # λ as the study chose them on its held-out images
            "vanilla",
            "cross_entropy",
            "feature_distillation@lambda=10",
            "ulfd@lambda=1,uem=default",
        ),
    ),
    "folder": replace(FINE_TUNING, dataset="folder", side=128),
}
"""The default run of each dataset."""


def fine_tuned(preset: SmallRun) -> SmallRun:
    """A dataset's preset for a library's network: its weights, few steps, a low learning rate."""
    return replace(
        preset,
        methods=FINE_TUNING.methods,
        pretrained=True,
        recipe=FINE_TUNING.recipe,
        pretraining=FINE_TUNING.pretraining,
    )


_LAPTOP = {
    "seeds": (0, 1, 2, 3, 4),
    "pretraining": Pretraining(),
    "network": Network(),
    "evaluation_images": 500,
}
BUDGETS: dict[str, dict[str, Any]] = {
    # Whether everything runs, nothing else.
    "smoke": _LAPTOP
    | {
        "seeds": (0,),
        "recipe": replace(SHORT, iterations=2, batch_size=16),
        "pretraining": Pretraining(iterations=2, batch_size=16),
        "evaluation_images": 10,
    },
    # The default run's recipe: half a minute for each network and seed on a core.
    "laptop": _LAPTOP | {"recipe": SHORT},
    # The preset as it is, with the paper's schedule where the dataset is large.
    "full": {"seeds": (0, 1, 2, 3, 4)},
}
"""What the tables of the paper change in a dataset's preset: fields of `SmallRun`."""
