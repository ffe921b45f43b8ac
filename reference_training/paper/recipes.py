"""By which recipe each row of the tables is trained: ours by the paper's, a baseline by its own.

How the paper trained its baselines is not established. What a recipe takes from its authors' public
code or paper is here, with what is missing there; `--recipe shared` trains all rows alike instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from reference_training.config import PAPER, RECIPES, Recipe
from reference_training.paper.experiments import BOTH, DEEPAUGMENT

OWN = "own"
"""The name of the recipes below together, beside those of `RECIPES`."""
IMAGES = 1_281_167
"""Of ImageNet's training set."""


def iterations(epochs: int, batch_size: int, sets: int = 1) -> int:
    """Iterations of so many epochs, each of which ends with a smaller batch."""
    return epochs * ceil(sets * IMAGES / batch_size)


@dataclass(frozen=True)
class OwnRecipe:
    """How a row is trained where nobody asks for another recipe."""

    recipe: Recipe
    source: str
    """Whose it is, and what differs here."""
    weights: str = "pretrained"
    """What the training starts from, as `ImageNetRun.weights`."""


OURS = OwnRecipe(PAPER, "the paper's Sec. 4")
NOT_PUBLIC = "the paper's, for the method's own is not public"
_DEEPAUGMENT = Recipe(
    iterations=iterations(30, 1024, sets=3),
    batch_size=1024,
    learning_rate=0.1,
    weight_decay=1e-4,
    optimizer="nesterov",
    decay="cosine",
    view="resized_crop",
)
BASELINES: Mapping[str, OwnRecipe] = {
    "vanilla": OwnRecipe(Recipe(iterations=0), "torchvision's weights, as they are"),
    "urie": OwnRecipe(
        Recipe(
            iterations=iterations(60, 64),
            batch_size=64,
            learning_rate=1e-4,
            weight_decay=1e-3,
            milestones=tuple(epoch / 60 for epoch in (10, 20, 30, 40, 50)),
            view="corrupted_crop",
        ),
        "its public code (taeyoungson/urie), whose default the batch is, for no text names it; the "
        "last network is taken instead of the best on its validation images",
    ),
    "kd_vid": OwnRecipe(
        Recipe(
            iterations=iterations(20, 32),
            batch_size=32,
            learning_rate=1e-4,
            weight_decay=1e-4,
            optimizer="sgd",
            milestones=(5 / 20, 10 / 20),
            view="resized_crop",
        ),
        "torchdistill's configuration for ImageNet, whose loss has a term of the teacher's "
        "logits besides; the authors' for ImageNet is not public",
    ),
    "ddp": OwnRecipe(PAPER, NOT_PUBLIC),
    "qualnet": OwnRecipe(PAPER, NOT_PUBLIC),
    "i_revnet": OwnRecipe(
        Recipe(
            iterations=600_000,
            batch_size=256,
            learning_rate=0.1,
            weight_decay=1e-4,
            optimizer="sgd",
            milestones=(160 / 600, 320 / 600, 480 / 600),
        ),
        "Jacobsen et al. 2018; how it crops and how long QualNet trained it is not established",
    ),
    "augmix": OwnRecipe(
        Recipe(
            iterations=iterations(90, 256),
            batch_size=256,
            learning_rate=0.1,
            weight_decay=1e-4,
            optimizer="sgd",
            milestones=(1 / 3, 2 / 3),
            view="resized_crop",
        ),
        "its public code (google-research/augmix), 90 epochs from random weights; the published "
        "weights had 180",
        weights="random",
    ),
    DEEPAUGMENT: OwnRecipe(
        _DEEPAUGMENT,
        "its public code (hendrycks/imagenet-r), from pretrained weights; there the three sets are "
        "one epoch, here each image is drawn from one of them",
    ),
    BOTH: OwnRecipe(
        _DEEPAUGMENT,
        "DeepAugment's, with AugMix's loss; how its authors joined the two is not public",
    ),
}
"""By the row's training. Every other row is ours."""


def recipe_of(training: str, name: str = OWN) -> OwnRecipe:
    """How a row is trained by its own recipe, or by one that all rows share, of `RECIPES`."""
    own = BASELINES.get(training, OURS)
    if name == OWN or not own.recipe.iterations:  # vanilla is never trained
        return own
    return OwnRecipe(RECIPES[name], name)
