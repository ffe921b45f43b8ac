"""Images that were augmented beforehand and lie in folders, as DeepAugment's do."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from reference_training.corruptions.random import Random
from reference_training.data.photographs import Photographs
from reference_training.runtime.errors import RunError

FOLDERS = 2  # the domain of the draws of a folder


class AugmentedFolders:
    """For every photograph its augmented version: <root>/<name of the photograph>.

    Args:
        photographs: what was augmented.
        roots: the folders, each with all photographs; which one is drawn for each pair.
    Raises:
        RunError: the first or the last photograph is missing in one of them.
    """

    def __init__(self, photographs: Photographs, roots: Sequence[Path]) -> None:
        self.photographs = photographs
        self.roots = tuple(roots)
        for root in self.roots:
            for sample in (0, len(photographs.labels) - 1):
                if not (root / photographs.name(sample)).is_file():
                    raise RunError(
                        f"{root / photographs.name(sample)} does not exist: a folder of "
                        "--deepaugment-roots has every training image, augmented, below the name "
                        "that it has below the training folder."
                    )

    def read(self, sample: int, seed: Tensor) -> bytes:
        """The file of the sample in one of the folders; the seed, int64 (), says which."""
        folder = Random(seed[None], domain=FOLDERS).integers(0, len(self.roots), 1)
        return (self.roots[int(folder)] / self.photographs.name(sample)).read_bytes()
