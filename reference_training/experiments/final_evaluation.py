"""The evaluation of a network at the end of its full-scale run: 96 sets, by all ranks, resumable.

A network that Table 4 adapts to the test images is evaluated with each adaptation, and on few
images too. The sets are the published ImageNet-C if it lies beside the training images, otherwise
the validation images corrupted on the fly and stored as JPEG, as the published ones were.
"""

from pathlib import Path
from typing import Any

from torch import nn

from reference_training.config import ImageNetRun
from reference_training.data.class_folders import ClassFolders
from reference_training.data.imagenet_c import PublishedFolders, corruption_folders
from reference_training.data.samples import EvaluationData
from reference_training.data.views import MEAN, STD
from reference_training.evaluation import CorruptionOptions, OnTheFly, evaluate_corruptions
from reference_training.evaluation.adaptation import NONE, Adaptation
from reference_training.evaluation.sets import SUBSET
from reference_training.networks.preprocessing import Preprocessing
from reference_training.runtime.errors import RunError

VALIDATION, PUBLISHED = "val", "imagenet-c"
"""The folders of the evaluation's images below the data root."""


def _data(run: ImageNetRun, classes: int) -> EvaluationData:
    root = run.data_root
    if not (root / VALIDATION).is_dir():
        raise RunError(
            f"the evaluation needs clean images in {root / VALIDATION}, one folder for each class; "
            "--plan says how to get ImageNet's. The trained network is safe; run the same command "
            "again when they are there."
        )
    clean = ClassFolders(root / VALIDATION, classes)
    if (root / PUBLISHED).is_dir() and corruption_folders(root / PUBLISHED):
        return PublishedFolders(root / PUBLISHED, classes, clean)
    return OnTheFly(clean, CorruptionOptions(frost=run.frost), jpeg85=True)


def folder(run: ImageNetRun, adaptation: str = NONE.name, *, few: bool = False) -> Path:
    """Where the results are kept."""
    return run.folder / "evaluation" / (f"{adaptation}-few" if few else adaptation)


def evaluate(
    run: ImageNetRun, model: nn.Module, classes: int, adaptation: Adaptation, *, few: bool
) -> dict[str, Any]:
    """Evaluates a trained network on all sets; continues what is there; see `summarise`.

    Args:
        run: whose network it is; its crop is the network's input size.
        model: images (B, 3, crop, crop) to logits, on its device.
        classes: how many.
        adaptation: how it adapts to each set.
        few: on Table 4's subset of 500 images instead.

    Raises:
        RunError: images are missing or unreadable.
    """
    return evaluate_corruptions(
        model,
        _data(run, classes),
        out=folder(run, adaptation.name, few=few),
        preprocessing=Preprocessing(MEAN, STD, run.crop),
        name=run.experiment,
        subset=SUBSET if few else run.evaluation_subset,
        workers=run.workers,
        adaptation=adaptation,
    )
