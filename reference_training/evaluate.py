"""Evaluates a classifier on clean images and on ImageNet-C's corruptions, resumably.

MODEL is a name of torchvision or timm (`resnet50`, `timm:resnet50.a1_in1k`), with the library's own
weights if they are on this machine, or with --checkpoint FILE (.safetensors, or .pth of tensors).
--data is the published ImageNet-C, Tiny-ImageNet-C or CIFAR-10/100-C, or clean images, which are
then corrupted on the fly: class folders, or a dataset by name. A killed evaluation continues when
the same command is given again; `--processes 2` shares its sets among two.
"""

import hashlib
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from tyro.conf import OmitArgPrefixes, Positional

from reference_training.corruptions.apply import RECORD
from reference_training.data import DATASETS, load
from reference_training.data.cifar_c import LABELS, PublishedArrays
from reference_training.data.class_folders import PREPARATIONS, ClassFolders
from reference_training.data.imagenet_c import PublishedFolders, corruption_folders
from reference_training.data.samples import CleanImages, EvaluationData, InMemory
from reference_training.evaluation import CorruptionOptions, OnTheFly, evaluate_corruptions
from reference_training.evaluation.adaptation import ADAPTATIONS
from reference_training.networks.models import load_model
from reference_training.networks.preprocessing import Preprocessing
from reference_training.reporting.evaluation_tables import corruption_table, metric_table
from reference_training.runtime import launch
from reference_training.runtime.command import exit_code
from reference_training.runtime.errors import RunError, check_at_least, check_known
from reference_training.runtime.ranks import is_main, join


@dataclass(frozen=True)
class Evaluation:
    """One evaluation."""

    model: Annotated[str, Positional, tyro.conf.arg(metavar="MODEL")]
    """A network by name; `torchvision:`, `timm:` or `run:` before it names the library."""
    data: str
    """A folder, or a dataset by name (see above)."""
    clean: str | None = None
    """With a published set: the clean images, in class folders or a dataset by name."""
    checkpoint: Path | None = None
    """Weights of your own, .safetensors or .pth; the number of classes is the file's."""
    checkpoint_prefix: str | None = None
    """What stands before the weights' names in the file; found if there is only one."""
    weights: str | None = None
    """Which of torchvision's weights; IMAGENET1K_V1 by default, those of the literature."""
    download: bool = False
    """Let torchvision or timm fetch weights from the network."""
    corruptions: tuple[str, ...] = ("all",)
    """Which: names, or all (19), seen (15), unseen (4)."""
    subset: int | None = None
    """Evaluate on so many images only, balanced over the classes; named in every label."""
    image_list: Path | None = None
    """Evaluate on those that this text file names, one on each line as n01440764/x.JPEG: as
    RobustBench's 5,000, which its robustbench/data/imagenet_test_image_ids.txt lists."""
    jpeg85: bool = False
    """On the fly: degraded images pass through a JPEG of quality 85, as the published ones did."""
    seed: int = 0
    """On the fly: of the random corruptions; 0 is what a run evaluates with."""
    corruption: OmitArgPrefixes[CorruptionOptions] = field(default_factory=CorruptionOptions)
    preparation: str = "imagenet"
    """Of clean images in folders: imagenet (Resize 256 and CenterCrop 224, and the paper's
    squashing to 224 as a second clean set), or as_is."""
    data_root: Path | None = None
    """The folder with the files of a dataset given by name, for those not embedded."""
    mean: tuple[float, float, float] | None = None
    """Of the normalisation, in [0, 1]; by default that of the weights."""
    std: tuple[float, float, float] | None = None
    """Of the normalisation; by default that of the weights."""
    input_size: int | None = None
    """Resize degraded images to so many pixels; by default what the library's weights were made
    for, and with --checkpoint not at all."""
    reference: Path | None = None
    """result.json of a network on the same images: normalise by its errors."""
    out: Path | None = None
    """The folder of the results; by default below runs/evaluation, named after the model, its
    checkpoint and the data."""
    adaptation: str = "none"
    """How the network adapts to each set: none, bn, bn_prior, rpl or rpl5 (Table 4)."""
    batch_size: Annotated[int | None, tyro.conf.arg(aliases=["-b"])] = None
    """Images computed at once, 256; or those adapted to at once: bn 256, with --subset 32; rpl* 96.
    """
    workers: int | None = None
    """Processes which read image files; by default up to 8, one for each core."""
    device: str | None = None
    """As cuda:1; by default a GPU if there is one."""
    processes: int = 1
    """How many to start on this machine, one for each GPU; torchrun starts them on several."""

    @property
    def folder(self) -> Path:
        """Where the results are."""
        if self.out is not None:
            return self.out
        data = self.data if self.data in DATASETS else _sign(Path(self.data))
        checkpoint = _sign(self.checkpoint) if self.checkpoint else ""
        adaptation = "" if self.adaptation == "none" else self.adaptation
        subset = f"subset-{self.subset}" if self.subset else ""
        subset = self.image_list.stem if self.image_list else subset
        name = "-".join(filter(None, (self.model, checkpoint, adaptation, data, subset)))
        return Path("runs") / "evaluation" / name.replace(":", "-").replace("/", "-")


def _sign(path: Path) -> str:
    """A name and a sign of where it is: many folders are called val, many files model."""
    path = path.resolve()
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"


def clean_images(where: str, given: Evaluation, classes: int) -> CleanImages:
    """Class folders, or the test images of a dataset by name."""
    if where in DATASETS:
        return InMemory(load(where, given.data_root))
    return ClassFolders(Path(where), classes, given.preparation)


def evaluation_data(given: Evaluation, classes: int) -> EvaluationData:
    """The data that --data names, whatever its layout.

    Raises:
        RunError: there is none of a known layout, or the options do not fit it.
    """
    root = Path(given.data)
    for option, where in ("--data", given.data), ("--clean", given.clean or given.data):
        if where not in DATASETS and not Path(where).is_dir():
            known = ", ".join(DATASETS)
            raise RunError(f"{option} {where} is neither a folder nor one of {known}.")
    published: Callable[..., EvaluationData] | None = None
    if given.data not in DATASETS and (root / LABELS).is_file():
        published = PublishedArrays
    elif given.data not in DATASETS and ((root / RECORD).is_file() or corruption_folders(root)):
        published = PublishedFolders
    if published is None:
        if given.clean is not None:
            raise RunError("--clean is for published sets; --data are clean images already.")
        images = clean_images(given.data, given, classes)
        return OnTheFly(images, given.corruption, seed=given.seed, jpeg85=given.jpeg85)
    if given.jpeg85 or given.seed or given.corruption != CorruptionOptions():
        raise RunError(
            f"{root} holds published images; --jpeg85, --seed, --parameters, --semantics and "
            "--frost are for clean images that are corrupted on the fly."
        )
    clean = clean_images(given.clean, given, classes) if given.clean is not None else None
    return published(root, classes, clean)


def check(given: Evaluation) -> None:
    """Raises RunError for what can be known to be wrong before anything is loaded."""
    check_at_least(1, given, "batch_size", "input_size")
    check_at_least(0, given, "workers")
    check_known("--adaptation", given.adaptation, ADAPTATIONS)
    check_known("--preparation", given.preparation, PREPARATIONS)
    if (given.mean is None) != (given.std is None):
        raise RunError("--mean and --std belong together; give both.")
    images = [Path(where).resolve() for where in (given.data, given.clean) if where]
    out = given.folder.resolve()
    if any(out.is_relative_to(root) and root.is_dir() for root in images):
        raise RunError(
            f"the results would be written into the images' own folder, to {out}, where they would "
            "be taken for a class; name another folder with --out."
        )


def execute(given: Evaluation, device: torch.device) -> None:
    """Evaluates, and prints the tables; continues what is already in the folder."""
    loaded = load_model(
        given.model,
        checkpoint=given.checkpoint,
        checkpoint_prefix=given.checkpoint_prefix,
        weights=given.weights,
        download=given.download,
    )
    data, ready = evaluation_data(given, loaded.classes), loaded.preprocessing
    if data.classes != loaded.classes:
        raise RunError(
            f"{loaded.name} has {loaded.classes} outputs, but {data.name} {data.classes} classes."
        )
    workers = given.workers
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        workers = 0 if given.data in DATASETS else min(8, cores or 1)
    size = given.input_size or ready.input_size
    ready = Preprocessing(given.mean or ready.mean, given.std or ready.std, size)
    if is_main():
        shown = f"resized to {size} pixels" if size else "of their own size"
        print(f"{loaded.name}: images {shown}, normalised by mean {ready.mean}, std {ready.std}")
    result = evaluate_corruptions(
        loaded.model.to(device),
        data,
        out=given.folder,
        preprocessing=ready,
        name=loaded.name,
        corruptions=given.corruptions,
        subset=given.subset,
        image_list=given.image_list,
        reference=given.reference,
        batch_size=given.batch_size,
        workers=workers,
        adaptation=ADAPTATIONS[given.adaptation],
    )
    if is_main():
        for table in (corruption_table(result), metric_table(result)):
            print(table.terminal(), end="\n\n")
        print(f"result: {given.folder / 'result.json'}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    module = "reference_training.evaluate"
    program = ["python", "-m", module]

    def work() -> int | None:
        given = tyro.cli(Evaluation, prog=" ".join(program), args=arguments, description=__doc__)
        check(given)
        code = launch.start(module, arguments, given.processes)
        if code is not None:
            return code
        with join(given.device or "auto") as world:
            execute(given, world.device)
        return None

    return exit_code(work, lambda: shlex.join([*program, *(arguments or sys.argv[1:])]))


if __name__ == "__main__":
    sys.exit(main())
