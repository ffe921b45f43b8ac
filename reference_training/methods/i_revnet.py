"""QualNet's first stage: an i-RevNet learns to classify clean images. In no table."""

from reference_training.config import Recipe, UEMOptions
from reference_training.methods.base import Method
from reference_training.methods.vanilla import VanillaStep
from reference_training.networks.i_revnet import i_revnet_like
from reference_training.networks.resnet import Classifier


def make_step(model: Classifier, recipe: Recipe, options: UEMOptions) -> VanillaStep:
    """L = CE(y, g(x)) of the i-RevNet g that fits the network, which itself has no part in it."""
    return VanillaStep(i_revnet_like(model))


METHOD = Method(
    "i_revnet",
    make_step,
    second="clean",
    start=None,
    source=(
        "Re-implemented from Jacobsen et al. (ICLR 2018), whose network it is; trained by the "
        "recipe that all methods share, not by theirs (SGD, 600k iterations). Not established: how "
        "long QualNet trained it."
    ),
)
