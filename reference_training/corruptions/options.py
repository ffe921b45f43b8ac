"""The options of `corrupt` as one value."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CorruptionOptions:
    """How images are corrupted: the keywords of `corrupt`, one field for each."""

    parameters: str | None = None
    """The parameter set by name (imagenet224, tiny64, cifar32); by the shorter side if none is."""
    semantics: str = "imagenet_c"
    """Which public definition: imagenet_c, of the published images, or imagecorruptions, of the
    package that the paper trained with."""
    frost: str = "auto"
    """Frost overlays: photographs (ImageNet-C's, from the installed package
    imagecorruptions-imaug), procedural (generated), or auto: photographs where installed."""
