"""QualNet's first stage: an i-RevNet learns to classify clean images. In no table."""

from reference_training.methods.base import Method
from reference_training.methods.cross_entropy import CrossEntropyStep
from reference_training.networks.i_revnet import i_revnet_like

METHOD = Method(
    "i_revnet",
    # The i-RevNet that fits the network, which itself has no part in the loss.
    lambda model, recipe, uem: CrossEntropyStep(i_revnet_like(model), "clean"),
    second="clean",
    start=None,
    source=(
        "Re-implemented from Jacobsen et al. (ICLR 2018), whose network it is. Not established: "
        "how long QualNet trained it."
    ),
)
