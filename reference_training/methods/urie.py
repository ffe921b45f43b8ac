"""URIE: an enhancement network in front of the vanilla network, which is frozen: Table 1.

The original draws each training image from 16 kinds, the 15 corruptions and clean. So do the pairs
here; two passes with the clean one's loss weighted by 1/15 would have the same expectation, but
cost twice as much, and batch normalisation would never see the two kinds mixed.
"""

from reference_training.methods.base import Method
from reference_training.methods.cross_entropy import CrossEntropyStep
from reference_training.networks.enhancers import URIE, EnhancedClassifier

METHOD = Method(
    "urie",
    # L = CE(y, f(e(x̃))): the enhancer e, with random weights at first, is trained; f is not.
    lambda model, recipe, uem: CrossEntropyStep(EnhancedClassifier(URIE(), model), "degraded"),
    second="corruption_or_clean",
    source=(
        "Re-implemented from a description of Son et al. (ECCV 2020): architecture, loss and the "
        "draw of the images are theirs. Not established: the slope of the leaky ReLU (0.01, "
        "torch's)."
    ),
)
