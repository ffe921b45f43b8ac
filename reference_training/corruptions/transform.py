"""`RandomCorruption`: random corruptions as a transform of torchvision's, alike in all workers.

**What is drawn.** Inside a `DataLoader` a sample's draw depends on its pixels and on the seed that
the loader draws from torch's generator at the start of each epoch: so it follows
`torch.manual_seed`, changes from epoch to epoch, and is the same for any number of workers, also
none. Two samples with the same pixels are drawn alike within an epoch. Anywhere else, as on a batch
in the training loop, each call draws from torch's global generator, as torchvision's transforms do.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import fields
from numbers import Integral
from typing import Any, SupportsFloat

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info
from torch.utils.data._utils.worker import _worker_loop
from torch.utils.data.dataloader import _SingleProcessDataLoaderIter
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2._utils import is_pure_tensor

from .batch import corrupt
from .checks import corruption_codes, severity_levels
from .options import CorruptionOptions
from .registry import SEEN, SEVERITIES


class RandomCorruption(v2.Transform):
    """Corrupt an image, or each of a batch, by a drawn type at a drawn severity.

    Takes what transforms of torchvision's v2 take: a `PIL.Image` or a tensor (3, H, W) or
    (B, 3, H, W), alone or in a sample whose labels, boxes and masks stay as they are; uint8, or
    floating point in [0, 1], so before `Normalize`. In a `Compose` it stands after what crops and
    flips, since each of these would otherwise be followed by corruptions of another size.

    Args:
        kinds: the types to draw from, each as likely as the others.
        severities: likewise.
        p: the share of images that are corrupted.
        pair: whether what is returned is the tuple (clean, degraded).
        options: of `corrupt`: parameters, semantics, frost.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or range.
        FileNotFoundError: frost photographs asked for and not there.
    """

    _transformed_types = (is_pure_tensor, tv_tensors.Image, Image.Image)

    def __init__(
        self,
        kinds: Sequence[str] = SEEN,
        severities: int | Sequence[int] = SEVERITIES,
        p: float = 1.0,
        pair: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.kinds = _several("kinds", kinds, str)
        levels = _several("severities", severities, Integral)
        if not (self.kinds and levels):
            raise ValueError("kinds and severities: expected at least one of each, got none")
        if unknown := sorted(options.keys() - {each.name for each in fields(CorruptionOptions)}):
            known = ", ".join(each.name for each in fields(CorruptionOptions))
            raise TypeError(f"{unknown[0]}: RandomCorruption has no such option; it has {known}")
        if not (isinstance(p, SupportsFloat) and 0 <= float(p) <= 1):
            raise ValueError(f"p: expected a share from 0 to 1, got {p!r}")
        try:  # what is wrong shows here, not an epoch later
            self.severities = tuple(severity_levels(levels, len(levels)))
            corruption_codes(self.kinds, len(self.kinds))
            corrupt(np.zeros((64, 64, 3), np.uint8), "contrast", 1, **options)
        except (TypeError, ValueError) as error:
            name, _, what = str(error).partition(":")
            names = {"corruption": "kinds", "severity": "severities"}
            raise type(error)(f"{names.get(name, name)}:{what}") from error
        self.p = p
        self.pair = pair
        self.options = CorruptionOptions(**options)
        # In shared memory, where persistent workers see it change.
        self._epoch = torch.full((), -1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Draw anew: needed, before each epoch, only with `persistent_workers=True`."""
        self._epoch.fill_(epoch)

    def forward(self, *inputs: Any) -> Any:
        """The degraded sample, or the pair of it."""
        degraded = super().forward(*inputs)
        return (inputs if len(inputs) > 1 else inputs[0], degraded) if self.pair else degraded

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Each image's type, severity and seed, and whether it is corrupted at all."""
        if not flat_inputs:
            raise ValueError("RandomCorruption: there is no image in the sample")
        image = flat_inputs[0]
        batch = len(image) if isinstance(image, Tensor) and image.ndim == 4 else 1
        draws = torch.Generator().manual_seed(self._key(image))
        kinds = torch.randint(len(self.kinds), (batch,), generator=draws).tolist()
        severities = torch.randint(len(self.severities), (batch,), generator=draws).tolist()
        return {
            "kinds": [self.kinds[at] for at in kinds],
            "severities": [self.severities[at] for at in severities],
            "seeds": torch.randint(2**62, (batch,), generator=draws),
            "chosen": torch.rand(batch, generator=draws) < self.p,
        }

    def _key(self, image: Tensor | Image.Image) -> int:
        seed = self._loader_seed()
        if seed is None:
            return int(torch.randint(2**62, (), device="cpu"))
        pixels = image.tobytes() if isinstance(image, Image.Image) else _bytes(image)
        content = hashlib.blake2b(pixels, digest_size=8, key=b"%d/%d" % (seed, self._epoch))
        return int.from_bytes(content.digest(), "big") >> 1

    def _loader_seed(self) -> int | None:
        """What the DataLoader that calls has drawn for this epoch; None if none calls."""
        worker = get_worker_info()
        # torch tells neither of persistent workers nor, without workers, of its loader.
        frame = sys._getframe()
        while frame := frame.f_back:  # type: ignore[assignment]
            if frame.f_code is _SingleProcessDataLoaderIter._next_data.__code__:
                return frame.f_locals["self"]._base_seed
            if worker is not None and frame.f_code is _worker_loop.__code__:
                if frame.f_locals["persistent_workers"] and self._epoch < 0:
                    raise RuntimeError(
                        "RandomCorruption: persistent workers keep one seed for all epochs, which "
                        "would all be corrupted alike; call its set_epoch(epoch) before each "
                        "epoch, or leave persistent_workers=True out"
                    )
                return worker.seed - worker.id
        return None

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """The image under what was drawn."""
        chosen = params["chosen"].nonzero()[:, 0]
        if len(chosen) == 0:
            return inpt
        kinds, severities, seeds = params["kinds"], params["severities"], params["seeds"]
        options = vars(self.options)
        if len(seeds) == 1:
            corrupted = corrupt(inpt, kinds, severities, seeds=seeds, **options)
        else:
            names = [kinds[at] for at in chosen.tolist()]
            levels = [severities[at] for at in chosen.tolist()]
            here = chosen.to(inpt.device)
            few = corrupt(inpt[here], names, levels, seeds=seeds[chosen], **options)
            corrupted = inpt.index_copy(0, here, few)
        if isinstance(inpt, tv_tensors.TVTensor):
            return tv_tensors.wrap(corrupted, like=inpt)
        return corrupted


def _several(name: str, given: Any, one: type) -> tuple[Any, ...]:
    """One or several as a tuple."""
    try:
        return (given,) if isinstance(given, one) else tuple(given)
    except TypeError as error:
        raise TypeError(f"{name}: expected one or several, got {given!r}") from error


def _bytes(image: Tensor) -> bytes:
    return image.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
