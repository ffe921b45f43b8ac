"""Test-time adaptation by name: what Table 4 compares the paper's method with."""

from reference_training.adaptation.base import NONE, Adaptation

ADAPTATIONS: dict[str, Adaptation] = {adaptation.name: adaptation for adaptation in (NONE,)}
"""A new adaptation is one file with an `Adaptation` and one entry here."""

__all__ = ["ADAPTATIONS", "NONE", "Adaptation"]
