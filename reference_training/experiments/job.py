"""A row on ImageNet with its names looked up once: what `imagenet`, `plan` and the export need."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reference_training.config import RECIPES, ImageNetRun
from reference_training.corruptions import CorruptionOptions, frost_source
from reference_training.data.second_images import CORRUPTED, DEEPAUGMENTED, Corruptions
from reference_training.data.views import Views
from reference_training.evaluation.adaptation import ADAPTATIONS, NONE, Adaptation
from reference_training.evaluation.sets import DRAWS
from reference_training.methods.base import Method
from reference_training.methods.trainings import Training, label, training
from reference_training.networks.backbones import ARCHITECTURES, Backbone
from reference_training.paper.experiments import EXPERIMENTS, ROWS, Row
from reference_training.paper.recipes import OWN, recipe_of
from reference_training.runtime.errors import check_known
from reference_training.training.export import MODEL, Titles

TRAIN, VALIDATION, PUBLISHED = "train", "val", "imagenet-c"
"""The folders below the data root: training images, clean ones for the evaluation, ImageNet-C."""
STAGES = "stages/"
"""What the names of the rows begin with that other rows need."""


@dataclass(frozen=True)
class Job:
    """A run and what its names stand for; whatever works on it looks nothing up."""

    run: ImageNetRun
    row: Row
    training: Training
    backbone: Backbone
    corruptions: Corruptions

    @property
    def method(self) -> Method:
        """What is trained."""
        return self.training.method

    @property
    def views(self) -> Views:
        """What its pairs show of a photograph."""
        return Views(self.run.resize, self.run.crop, self.corruptions, self.run.recipe.view)

    @property
    def deepaugmented(self) -> bool:
        """Whether the second images are DeepAugment's, or their stand-in's."""
        return self.training.second in DEEPAUGMENTED

    @property
    def frost(self) -> str | None:
        """The overlays of the training's frost; None if no pair has it.

        Raises:
            ValueError, FileNotFoundError: as `frost_source`.
        """
        return frost_source(self.run.frost) if self.training.second in CORRUPTED else None

    @property
    def stage(self) -> ImageNetRun | None:
        """The run of the network that the method needs, in its default folder; None needs none."""
        if self.method.needs is None:
            return None
        return replace(self.run, experiment=STAGES + self.method.needs, out=None)

    @property
    def needed_weights(self) -> Path | None:
        """The weights of that network: those given, or those that its run exports."""
        if self.stage is None:
            return None
        return self.run.needed or self.stage.folder / "export" / MODEL

    @property
    def recipes(self) -> list[str]:
        """Whose recipe it is: own and names of `RECIPES`, which may be alike, or "changed"."""
        names = [
            name
            for name in (OWN, *RECIPES)
            if self.training.recipe(recipe_of(self.row.training, name).recipe) == self.run.recipe
        ]
        return names or ["changed"]

    @property
    def heading(self) -> Titles:
        """What the export says about the method and the row."""
        return Titles(self.method.name, label(self.training.name), self.row.label)

    def make_step(self, classes: int) -> Any:
        """The step with random weights, `Batch` to `StepResult`."""
        return self.method.make_step(self.backbone.make(classes), self.run.recipe, self.run.uem)

    def evaluations(self) -> Iterator[tuple[Adaptation, int | None]]:
        """How the paper's tables evaluate it: the adaptation, and the draw of few images."""
        network = (self.row.training, self.row.arch)
        alike = [row for row in ROWS.values() if (row.training, row.arch) == network]
        names = dict.fromkeys([NONE.name, *(row.adaptation for row in alike if row.adaptation)])
        few = any(row in EXPERIMENTS["table4"].rows for row in alike)
        for name in names:
            yield from ((ADAPTATIONS[name], draw) for draw in (None, *range(DRAWS * few)))


def resolve(run: ImageNetRun) -> Job:
    """Looks up every name of a run.

    Raises:
        RunError: there is no such row or backbone.
    """
    check_known("--experiment", run.experiment, ROWS)
    check_known("--arch", run.arch, ARCHITECTURES)
    row = ROWS[run.experiment]
    # The definition that the paper trained with is published for one size.
    published = "imagecorruptions" if run.crop == 224 else "imagenet_c"
    return Job(
        run,
        row,
        training(row.training),
        ARCHITECTURES[run.arch],
        Corruptions(
            run.corruption_sampling,
            CorruptionOptions(
                run.corruption_parameters, run.corruption_semantics or published, run.frost
            ),
        ),
    )
