"""By which recipe each row of the tables is trained: ours by the paper's, a baseline by its own.

How the paper trained its baselines is not established. What a recipe takes from its authors' public
code or paper is here, with what is missing there; `--recipe shared` trains all rows alike instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

from reference_training.config import PAPER, RECIPES, Recipe
from reference_training.paper.experiments import BOTH, DEEPAUGMENT, Row

OWN = "own"
"""The name of the recipes below together, beside those of `RECIPES`."""
IMAGES = 1_281_167
"""Of ImageNet's training set."""


def iterations(epochs: int, batch_size: int, sets: int = 1) -> int:
    """Iterations of so many epochs, each of which ends with a smaller batch."""
    return epochs * ceil(sets * IMAGES / batch_size)


FAITHFUL, STYLE = "faithful", "in the style of"


@dataclass(frozen=True)
class OwnRecipe:
    """How a row is trained where nobody asks for another recipe."""

    recipe: Recipe
    whose: str
    differs: str = "nothing known"
    """What is not as in the method's publication, or not established."""
    method: str = FAITHFUL
    """Or in the style of: the publication leaves too much open."""
    weights: str = "pretrained"
    """What the training starts from, as `ImageNetRun.weights`."""


PAPERS = "the paper's"
OURS = OwnRecipe(PAPER, PAPERS, "precision and, where there is a σ, its limits")
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
        "its code's (taeyoungson/urie)",
        "the last network, not the best on validation images; the batch is the code's default",
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
        "torchdistill's for ImageNet",
        "its authors' recipe and layers for ImageNet are not public; torchdistill also teaches by "
        "logits",
        STYLE,
    ),
    "ddp": OwnRecipe(
        PAPER,
        PAPERS,
        "neither layers nor recipe are public; trained on all images, not on few",
        STYLE,
    ),
    "qualnet": OwnRecipe(
        PAPER, PAPERS, "neither code nor recipe are public; needs `stages/i_revnet`", STYLE
    ),
    "i_revnet": OwnRecipe(
        Recipe(
            iterations=600_000,
            batch_size=256,
            learning_rate=0.1,
            weight_decay=1e-4,
            optimizer="sgd",
            milestones=(160 / 600, 320 / 600, 480 / 600),
        ),
        "Jacobsen et al.'s",
        "how it crops is not established, nor how QualNet trained it",
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
        "its code's (google-research/augmix), from random weights",
        "90 epochs; the published weights had 180",
        weights="random",
    ),
    DEEPAUGMENT: OwnRecipe(
        _DEEPAUGMENT,
        "its code's (hendrycks/imagenet-r)",
        "each image is drawn from one of the three sets, there all of them are one epoch",
    ),
    BOTH: OwnRecipe(
        _DEEPAUGMENT,
        "DeepAugment's, with AugMix's loss",
        "how its authors joined the two is not public",
        STYLE,
    ),
}
"""By the row's training. Every other row is ours."""
ADAPTED = {
    "bn": "the batches are the paper's, 256 and 32",
    "rpl5": "rate, batch and epochs of its public demo, whose last epoch predicts here; those of "
    "its paper are not established",
}
"""What a test-time adaptation adds to what differs."""


def recipe_of(training: str, name: str = OWN) -> OwnRecipe:
    """How a row is trained by its own recipe, or by one that all rows share, of `RECIPES`."""
    own = BASELINES.get(training, OURS)
    if name == OWN or not own.recipe.iterations:  # vanilla is never trained
        return own
    return replace(own, recipe=RECIPES[name], whose=name, weights=OwnRecipe.weights)


def differences(row: Row) -> str:
    """What is not as in the publication of a row's method, or not established."""
    return ADAPTED.get(row.adaptation or "", BASELINES.get(row.training, OURS).differs)


def words(recipe: Recipe) -> str:
    """A recipe in one line."""
    if not recipe.iterations:
        return "not trained"
    return (
        f"{recipe.optimizer} {recipe.learning_rate:g}, {recipe.decay}, weight decay "
        f"{recipe.weight_decay:g}, {recipe.iterations:,} × {recipe.batch_size}, {recipe.view}"
    )
