"""Test-time adaptation by name: what Table 4 compares the paper's method with."""

from reference_training.evaluation.adaptation.base import NONE, Adaptation
from reference_training.evaluation.adaptation.rpl import RPL
from reference_training.evaluation.adaptation.statistics import BN, BN_PRIOR

ADAPTATIONS: dict[str, Adaptation] = {
    adaptation.name: adaptation for adaptation in (NONE, BN, BN_PRIOR, RPL)
}
"""A new adaptation is one file with an `Adaptation` and one entry here."""

__all__ = ["ADAPTATIONS", "NONE", "Adaptation"]
