"""ImageNet-C's 15 + 4 corruptions of any image, one or many, on any device. On its own:

    from reference_training.corruptions import corrupt
    foggy = corrupt(photo, "fog", 3)  # a PIL.Image, a NumPy array or a tensor; out comes the same
    mixed = corrupt(images, ["fog", "snow"] * 4, [1, 5] * 4, seed=7)  # one for each of a batch

`RandomCorruption` is a transform for torchvision; it alone needs torchvision.

**Sizes.** Severities are published for 224x224, 64x64 and 32x32 images. Others take those of
32x32 where the shorter side is at most 48 pixels, those of 64x64 to 128, else those of 224x224;
`parameters=` names a set instead: "imagenet224", "tiny64", "cifar32".
**Definitions.** `semantics="imagenet_c"` is what ImageNet-C was made by; "imagecorruptions" is the
public package of that name, which differs in four types; see `registry`.
**Frost.** ImageNet-C's overlays are photographs that this project does not carry. `frost="auto"`
takes them from an installed `imagecorruptions-imaug`, and else warns and generates a stand-in;
"photographs", "procedural" or a folder decide it. `frost_source` says in a line which were used.
Overlays smaller than the image are enlarged to cover it.
**Seeds.** What becomes of an image depends on its pixels, type, severity and seed, and not on its
neighbours, batch or number of workers. `seed=` gives the image at position i the seed
seed 2^32 + i, and `seeds=` gives each its own. CPU and GPU draw the same numbers, apart from the
last bits of a logarithm or cosine. On a GPU nothing waits for the device, except where JPEG is
encoded, and where spatter's water links edges.
**Exactness.** Given the same random numbers, at most one grey level off the public implementation
and less than a tenth of one in the mean, at every type, severity and size, on photographs
(`tests/reference_training/corruptions`). ImageNet-C's files are also saved as JPEGs of quality 85,
which is not done here.

Families: noise, blur, weather, frost, spatter, digital. `parameters` holds the severities,
`registry` the names, `random` the draws, `filters` and `resampling` what the families share.
`python -m reference_training.corruptions` draws a sheet of all of them, or corrupts a folder.
"""

from typing import TYPE_CHECKING, Any

from .batch import corrupt
from .frost import frost_source
from .options import CorruptionOptions
from .registry import CORRUPTIONS, GROUPS, SEEN, SEMANTICS, SEVERITIES, UNSEEN

if TYPE_CHECKING:
    from .transform import RandomCorruption

__all__ = [
    "CORRUPTIONS",
    "GROUPS",
    "SEEN",
    "SEMANTICS",
    "SEVERITIES",
    "UNSEEN",
    "CorruptionOptions",
    "RandomCorruption",
    "corrupt",
    "frost_source",
]


def __getattr__(name: str) -> Any:
    if name == "RandomCorruption":  # torchvision is slow to import, and only this needs it
        from .transform import RandomCorruption

        return RandomCorruption
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
