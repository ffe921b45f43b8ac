"""What stands beside the clean image in a pair: a corruption of it, an augmentation, or itself.

Every function is pure: the second image of sample i at iteration t depends on (seed, i, t) alone.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from reference_training.corruptions import SEEN, CorruptionOptions, corrupt
from reference_training.corruptions.random import Random, splitmix64
from reference_training.data.augmentations import augmix, deepaugment_stand_in
from reference_training.data.sampling import CORRUPTION_SAMPLINGS, Drawn


@dataclass(frozen=True)
class Corruptions:
    """Which corruptions are drawn, and how they are made."""

    sampling: str = "independent"
    """A key of `CORRUPTION_SAMPLINGS`."""
    options: CorruptionOptions = field(default_factory=CorruptionOptions)
    """What the drawn ones do to an image."""


@dataclass(frozen=True)
class Draws:
    """All that is random in the pairs of a batch.

    Args:
        seeds: int64 (B,), the root of each pair's random numbers, on the CPU.
        random: draws from the seeds in the main domain, where the flips come from too; what needs
            more numbers opens a domain of its own: `Random(seeds, domain=...)`.
        positions: int64 (B,), where in the endless sequence the pairs stand.
        seed: of the run.
        corruptions: how corruptions are drawn.
        deepaugmented: uint8 (B, 3, H, W), DeepAugment's own images of the pairs, if there are.
        encoded: uint8 (E, 3, H, W), the second images of those pairs that get `ENCODED`, in their
            order, if they are made already.
    """

    seeds: Tensor
    random: Random
    positions: Tensor
    seed: int
    corruptions: Corruptions
    deepaugmented: Tensor | None = None
    encoded: Tensor | None = None

    def kinds(self) -> Drawn:
        """Each pair's corruption and severity: drawn once, or `random` goes on to other ones."""
        sampling = CORRUPTION_SAMPLINGS[self.corruptions.sampling]
        return sampling(self.random, self.positions, self.seed)

    def view(self, number: int) -> "Draws":
        """The draws of another second image of the same pairs; view 0 are these themselves."""
        if number == 0:
            return self
        seeds = splitmix64(self.seeds, torch.full_like(self.seeds, number))
        return replace(self, seeds=seeds, random=Random(seeds), encoded=None)


_CLEAN_DRAWS = zlib.crc32(b"corruption_or_clean")  # a domain; see `Random`

SecondImage = Callable[[Tensor, Draws], Tensor]
"""uint8 (B, 3, H, W) to grey levels 0 to 255, uint8 or float32, of the same shape, on the images'
device."""


def corruption(images: Tensor, draws: Draws) -> Tensor:
    """One of the 15 seen corruptions at one of its severities (Sec. 4)."""
    names, severities = draws.kinds()
    options = vars(draws.corruptions.options)
    if draws.encoded is None:
        return corrupt(images, names, severities, seeds=draws.seeds, **options)
    encoded = torch.tensor([name == ENCODED for name in names])
    there, rest = (
        places.nonzero()[:, 0].to(images.device, non_blocking=True)
        for places in (encoded, ~encoded)
    )
    drawn = [each for each in zip(names, severities, strict=True) if each[0] != ENCODED]
    others = [name for name, _ in drawn], [severity for _, severity in drawn]
    made = corrupt(images[rest], *others, seeds=draws.seeds[~encoded], **options)
    return torch.empty_like(images).index_copy_(0, rest, made).index_copy_(0, there, draws.encoded)


def or_clean(make: SecondImage, kinds: int) -> SecondImage:
    """As `make`, which stands for `kinds` kinds, but as often as each the clean image again."""

    def second(images: Tensor, draws: Draws) -> Tensor:
        drawn = Random(draws.seeds, domain=_CLEAN_DRAWS).integers(0, kinds + 1, 1)
        keep = (drawn == kinds).view(-1, 1, 1, 1).to(images.device, non_blocking=True)
        return torch.where(keep, images, make(images, draws))

    return second


def deepaugment(images: Tensor, draws: Draws) -> Tensor:
    """DeepAugment's own image where there is one, or else its stand-in, see `augmentations`.

    Here every pair has one clean image and an augmented one; the original trains on all images of
    three sets, see `deepaugment_or_clean` below.
    """
    if draws.deepaugmented is not None:
        return draws.deepaugmented
    return deepaugment_stand_in(images, draws.seeds)


def second_image(kind: str, images: Tensor, draws: Draws, views: int = 1) -> Tensor:
    """What stands beside the clean images.

    Args:
        kind: a key of `SECOND_IMAGES`.
        images: uint8 (B, 3, H, W).
        draws: all that is random.
        views: how many of them, drawn independently of each other.

    Returns:
        Grey levels (B, 3, H, W); with more than one view (B, V, 3, H, W).
    """
    make = SECOND_IMAGES[kind]
    if views == 1:
        return make(images, draws)
    return torch.stack([make(images, draws.view(number)) for number in range(views)], 1)


def flipped(images: Tensor, flip: Tensor) -> Tensor:
    """Images (B, ..., H, W) mirrored where `flip`, bool (B,), says so."""
    return torch.where(flip.view(-1, *[1] * (images.dim() - 1)), images.flip(-1), images)


SECOND_IMAGES: dict[str, SecondImage] = {
    "clean": lambda images, draws: images,
    "corruption": corruption,
    "corruption_or_clean": or_clean(corruption, len(SEEN)),  # URIE
    "augmix": lambda images, draws: augmix(images, draws.seeds),
    "deepaugment": deepaugment,
    # DeepAugment's own training, of single images: clean, EDSR's and CAE's in equal parts.
    "deepaugment_or_clean": or_clean(deepaugment, 2),
    # How the originals of the two were joined is not public.
    "deepaugment_augmix": lambda images, draws: augmix(deepaugment(images, draws), draws.seeds),
}
"""A new kind of pair is one function and one entry here."""
ENCODED = "jpeg_compression"
"""The corruption that the CPU alone makes: on a GPU's images it would have to wait for them."""
CORRUPTED = ("corruption", "corruption_or_clean")
"""Those with ImageNet-C's corruptions, and so with a frost."""
DEEPAUGMENTED = ("deepaugment", "deepaugment_or_clean", "deepaugment_augmix")
"""Those that are made from DeepAugment's own images, where there are."""
