"""The published ImageNet-C and Tiny-ImageNet-C: `ROOT/gaussian_noise/1/n01440764/*.JPEG`.

The corruptions' folders may lie below those of the tars (`ROOT/noise/gaussian_noise`), as long as
each is found once.

Source: Hendrycks & Dietterich 2019; https://github.com/hendrycks/robustness.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from reference_training.corruptions import CORRUPTIONS, SEVERITIES
from reference_training.corruptions.apply import RECORD
from reference_training.data.class_folders import (
    ImageFiles,
    are_imagenets,
    files_sha256,
    times_sha256,
)
from reference_training.data.photographs import ImageFolder
from reference_training.data.samples import (
    CleanImages,
    EvaluationSet,
    Samples,
    check_same_labels,
    spread,
)
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json
from reference_training.runtime.image_files import class_names, some

ARCHIVES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
"""Which of ImageNet-C's five tars holds which corruption."""

DEPTH = 3
"""How deep the corruptions' folders may lie, as ROOT/ImageNet-C/noise/gaussian_noise."""


@dataclass(frozen=True)
class Published:
    """One of the published data sets."""

    name: str
    classes: int
    side: int  # pixels
    record: str
    archives: dict[str, tuple[str, ...]]

    def where_to_get(self, missing: Iterable[str]) -> str:
        """Where the missing corruptions are."""
        wanted = set(missing)
        files = [f"{tar}.tar" for tar, held in self.archives.items() if wanted & set(held)]
        return f"Get {' and '.join(files)} of {self.name} from {self.record} and extract there"


IMAGENET_C = Published("ImageNet-C", 1000, 224, "https://zenodo.org/records/2235448", ARCHIVES)
TINY_IMAGENET_C = Published(
    "Tiny-ImageNet-C",
    200,
    64,
    "https://zenodo.org/records/2536630",
    {"Tiny-ImageNet-C": CORRUPTIONS},
)


def corruption_folders(root: Path) -> dict[str, Path]:
    """Where each corruption's folder is: in `root`, or up to two folders below.

    Raises:
        RunError: one is there twice.
    """
    found: dict[str, Path] = {}
    level = [root]
    for _ in range(DEPTH):
        folders = [above / name for above in level for name in class_names(above)]
        for path in folders:
            if path.name in found:
                raise RunError(
                    f"{path.name} is in {root} more than once ({found[path.name]} and {path}); "
                    "remove one, or give a folder that holds one of them."
                )
            if path.name in CORRUPTIONS:
                found[path.name] = path
        level = [path for path in folders if path.name not in CORRUPTIONS]
    return found


class PublishedFolders:
    """The sets of a published data set in folders, and optionally the clean images.

    Args:
        root: the folder.
        classes: how many class folders there must be: the outputs of the network.
        clean: the clean images, for the clean accuracy and relative errors.

    Raises:
        RunError: there is no corruption in `root`, or the class folders do not agree.
    """

    def __init__(self, root: Path, classes: int, clean: CleanImages | None = None) -> None:
        self.root = root
        self.classes = classes
        self.clean_images = clean
        self.clean_sets = clean.clean_sets if clean else ()
        self.published = IMAGENET_C  # until an image says otherwise
        self.made = read_json(root / RECORD) if (root / RECORD).is_file() else None
        self.folders = corruption_folders(root)
        if not self.folders:
            raise RunError(
                f"{root} has none of the folders {some(CORRUPTIONS)}. "
                f"{self._where_to_get(CORRUPTIONS)}."
            )
        # Zenodo's Tiny-ImageNet-C has a frost of 1000 classes (hendrycks/robustness issue 60),
        # so another corruption says which the classes are.
        first = min(self.folders, key=lambda name: (name == "frost", CORRUPTIONS.index(name)))
        folder = self._severities(first)[0]
        self.names = class_names(folder)
        # Only an image's size says whose tars they are.
        again = self._where_to_get([first]) if self.made else "Extract the tars again"
        if len(self.names) != classes:
            raise RunError(
                f"{folder} has {len(self.names)} class folders, but the network has {classes} "
                f"outputs. {again}, or evaluate a network for these classes."
            )
        self.photographs = ImageFolder(folder, self.names)
        self.labels = self.photographs.labels
        self.files: Sequence[str] = self.photographs.names
        one = ImageFiles(self.photographs, remedy=again)[0]
        self.size = one.shape[1:]
        height, width = self.size
        if width <= TINY_IMAGENET_C.side:
            self.published = TINY_IMAGENET_C
        side = self.published.side
        whole = self.size == (side, side) and classes == self.published.classes
        self.layout = self.published.name + (
            "" if whole else f" ({classes} classes, {width}x{height})"
        )
        self.name = self.layout
        self.is_imagenet = whole and self.published is IMAGENET_C and are_imagenets(self.names)
        self.resizing: str | None = None
        if self.made is not None:
            self._read_record(self.made)
        if clean:
            check_same_labels(clean, self.name, self.labels)
            self._check_same_classes(clean)

    def _check_same_classes(self, clean: CleanImages) -> None:
        """Raises RunError if the clean images are in other class folders, or, where they are known
        to have the corrupted ones' names, are others."""
        photographs = getattr(clean, "photographs", None)
        if not isinstance(photographs, ImageFolder):
            return
        here, there = list(self.names), list(photographs.classes)
        if self.made is not None:
            here, there = (
                [str(Path(file).with_suffix("")) for file in files]
                for files in (self.files, photographs.names)
            )
        if here != there:
            raise RunError(
                f"{photographs.root} has not the images of which {self.root} was made: they differ "
                f"in {some(sorted({*here} ^ {*there}))}. Give those as --clean."
            )

    def _read_record(self, made: Mapping[str, Any]) -> None:
        """Of a folder that `corruptions apply` made: its name, and how its images were prepared."""
        try:
            frost, preparation = made["options"]["frost"], made["preparation"]
        except (KeyError, TypeError) as error:
            raise RunError(
                f"{self.root / RECORD} is not what `corruptions apply` writes; rename it."
            ) from error
        height, width = self.size
        name = self.root.resolve().name
        self.name = f"{name} ({self.classes} classes, {width}x{height}, {frost})"
        if preparation == "as_is":
            self.resizing = (
                "Run `corruptions apply --preparation imagenet` into another folder, which makes "
                "all equally large"
            )
        prepared = getattr(self.clean_images, "preparation", None)
        if prepared not in (None, preparation):
            raise RunError(
                f"{self.root} was made with --preparation {preparation}, but the clean images "
                f"would be prepared as {prepared}, and both are compared: give --preparation "
                f"{preparation}."
            )

    def _where_to_get(self, missing: Iterable[str]) -> str:
        """What brings missing or damaged images: where they were published, or who made them."""
        if self.made is None:
            return self.published.where_to_get(missing)
        return (
            f"Run the same `corruptions apply` into {self.root} again, with all that is evaluated "
            "among its --kinds and --severities, after deleting what is damaged"
        )

    def _severities(self, corruption: str) -> list[Path]:
        folders = [self.folders[corruption] / str(severity) for severity in SEVERITIES]
        missing = [str(folder) for folder in folders if not folder.is_dir()]
        if missing:
            raise RunError(
                f"missing: {', '.join(missing)}. {self._where_to_get([corruption])}, or "
                "name other --corruptions."
            )
        return folders

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The data set, the fingerprint of its file names, the clean images.

        More corruptions may come; the content of each set is told by its mark.
        """
        return {
            "published": self.layout,
            "names_sha256": hashlib.sha256("\n".join(self.files).encode()).hexdigest(),
            "clean": self.clean_images.identity if self.clean_images else None,
        }

    def check(self, sets: Sequence[EvaluationSet]) -> None:
        """Raises RunError for corruptions, severities or class folders that are not there."""
        wanted = list(dict.fromkeys(name for name, severity in sets if severity))
        missing = [name for name in wanted if name not in self.folders]
        if missing:
            raise RunError(
                f"{self.root} has no folder for {', '.join(missing)}. "
                f"{self._where_to_get(missing)}, or name the --corruptions that are there."
            )
        for name in wanted:
            for folder in self._severities(name):
                self._check_classes(folder)

    def _check_classes(self, folder: Path) -> None:
        found = class_names(folder)
        missing = sorted(set(self.names) - set(found))
        extra = sorted(set(found) - set(self.names))
        if self.made is None and self.published is TINY_IMAGENET_C:
            extra = []  # frost's, see above; they are not read
        if missing or extra:
            which = f"lacks {some(missing)}" if missing else f"has {some(extra)} too"
            raise RunError(
                f"{folder} does not have the class folders of {self.photographs.root}: it {which}. "
                f"{self._where_to_get([folder.parent.name])}."
            )

    @cache  # noqa: B019 - an evaluation has one of these, and asks again and again
    def mark(self, one: EvaluationSet) -> str:
        """The content of some of the set's files, and when they were changed."""
        name, severity = one
        if self.clean_images and name in self.clean_sets:
            return self.clean_images.mark
        there = self.photographs.at(self.folders[name] / str(severity))
        some_files = spread(len(self.labels))
        present = [at for at in some_files if (there.root / there.name(at)).is_file()]
        return files_sha256(there, present) + times_sha256(there, present)

    def samples(self, one: EvaluationSet) -> Samples:
        """The images of one set.

        Raises:
            RunError: it has not the images that the other sets have.
        """
        name, severity = one
        if self.clean_images and name in self.clean_sets:
            return self.clean_images.clean(name)
        folder = self.folders[name] / str(severity)
        remedy, resizing = self._where_to_get([name]), self.resizing
        found, first = ImageFolder(folder, self.names), self.photographs
        if found.names != self.files:
            difference = sorted(set(found.names) ^ set(self.files))
            raise RunError(
                f"{folder} has {len(found.labels)} images and {first.root} {len(first.labels)}; "
                f"they differ in {some(difference)}. {remedy}."
            )
        images = ImageFiles(found, size=self.size, remedy=remedy, resizing=resizing)
        return Samples(images, found.labels)
