"""The paper's tables as runs: one entry for each row, by name, as "table1/ulfd"."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reference_training.config import Recipe


@dataclass(frozen=True)
class Experiment:
    """A row of a table: the method, and what its recipe changes in the one that is asked for."""

    method: str
    row: str
    """What the row is called in the paper."""
    changes: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe of this row."""
        return replace(recipe, **self.changes)


EXPERIMENTS: dict[str, Experiment] = {
    # The paper's vanilla networks are torchvision's; nothing is trained.
    "table1/vanilla": Experiment("vanilla", "Vanilla", {"iterations": 0}),
    "table1/feature_distillation": Experiment("feature_distillation", "Ours w/o UEM"),
    "table1/ulfd": Experiment("ulfd", "Ours"),
    "table5/cross_entropy": Experiment("cross_entropy", "no module"),
    "table5/feature_distillation": Experiment("feature_distillation", "+ SFD"),
    "table5/ulfd": Experiment("ulfd", "+ SFD + UM"),
    "table6a/0": Experiment("cross_entropy", "λ = 0"),
    "table6a/0.01": Experiment("ulfd", "λ = 0.01", {"distillation_weight": 0.01}),
    "table6a/0.1": Experiment("ulfd", "λ = 0.1", {"distillation_weight": 0.1}),
    "table6a/1": Experiment("ulfd", "λ = 1", {"distillation_weight": 1.0}),
}
"""A new row is one entry; its method is one file in `methods`."""
