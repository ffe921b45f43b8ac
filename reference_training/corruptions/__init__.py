"""ImageNet-C's 15 + 4 corruptions, batched, on any device. To be used on its own:

    from reference_training.corruptions import corrupt
    images = torch.randint(0, 256, (8, 3, 224, 224), dtype=torch.uint8)
    foggy = corrupt(images, "fog", 3, seeds=torch.arange(8))
    mixed = corrupt(images, ["fog", "snow"] * 4, [1, 5] * 4, seeds=torch.arange(8))

**Sizes.** Severities are published for 224x224, 64x64 and 32x32 images, and chosen by the images'
size (`parameters=` names a set for another one: "imagenet224", "tiny64", "cifar32").
**Definitions.** `semantics="imagenet_c"` is what ImageNet-C was made by; "imagecorruptions" is the
public package of that name, which differs in four types; see `registry`.
**Frost.** ImageNet-C's overlays are photographs that this project does not carry. `frost="auto"`
takes them from an installed `imagecorruptions-imaug`, and else warns and generates a stand-in;
"photographs", "procedural" or a folder decide it. `frost_source` says in a line which were used.
**Seeds.** What becomes of an image depends on its pixels, type, severity and seed, and not on its
neighbours, batch or number of workers; CPU and GPU draw the same numbers, apart from the last bits
of a logarithm or cosine. On a GPU nothing waits for the device, except where JPEG is encoded, and
where spatter's water links edges.
**Exactness.** Given the same random numbers, at most one grey level off the public implementation
and less than a tenth of one in the mean, at every type, severity and size, on photographs
(`tests/reference_training/corruptions`). ImageNet-C's files are also saved as JPEGs of quality 85,
which is not done here.

Families: noise, blur, weather, frost, spatter, digital. `parameters` holds the severities,
`registry` the names, `random` the draws, `filters` and `resampling` what the families share.
`python -m reference_training.corruptions` draws a sheet of all of them.
"""

from .batch import corrupt
from .frost import frost_source
from .options import CorruptionOptions
from .registry import CORRUPTIONS, SEEN, SEMANTICS, SEVERITIES, UNSEEN

__all__ = [
    "CORRUPTIONS",
    "SEEN",
    "SEMANTICS",
    "SEVERITIES",
    "UNSEEN",
    "CorruptionOptions",
    "corrupt",
    "frost_source",
]
