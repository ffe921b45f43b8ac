"""The methods that are compared, one file each, by name."""

from reference_training.methods import (
    augmix,
    cross_entropy,
    ddp,
    feature_distillation,
    i_revnet,
    kd_vid,
    qualnet,
    ulfd,
    ulfd_reconstruct,
    urie,
)
from reference_training.methods.base import Method

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        cross_entropy.VANILLA_METHOD,
        cross_entropy.METHOD,
        cross_entropy.DEGRADED_ONLY,
        feature_distillation.METHOD,
        ulfd.METHOD,
        ulfd_reconstruct.METHOD,
        kd_vid.METHOD,
        ddp.METHOD,
        urie.METHOD,
        i_revnet.METHOD,
        qualnet.METHOD,
        augmix.METHOD,
    )
}
"""A new method is one file with a `Method` and one line here."""

__all__ = ["METHODS", "Method"]
