"""Random numbers that belong to an image, not to a batch: SplitMix64, counter-based, in torch.

A draw is a pure function of (seed, domain, stream, element index). Neither the neighbours in a
batch, nor the order, nor torch's global generators can change it; integer words are the same on
every device.

Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _signed(word: int) -> int:
    """The 64-bit `word` as torch's int64 holds it."""
    return word - (1 << 64) if word >> 63 else word


_GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST_MULTIPLIER = _signed(0xBF58476D1CE4E5B9)
_SECOND_MULTIPLIER = _signed(0x94D049BB133111EB)


def _shift_right(words: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's own copies the sign bit."""
    return (words >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def splitmix64(state: Tensor, index: Tensor) -> Tensor:
    """Word number `index` of the SplitMix64 generator which starts at `state`.

    z = state + (index + 1) gamma;  z = (z ^ z>>30) m1;  z = (z ^ z>>27) m2;  z ^ z>>31

    Args:
        state: int64, any shape that broadcasts with `index`.
        index: int64, counted from 0.

    Returns:
        int64 holding the 64 bits of the unsigned words, in the broadcast shape.

    Source: Steele, Lea & Flood 2014.
    """
    words = state + (index + 1) * _GAMMA
    words.bitwise_xor_(_shift_right(words, 30)).mul_(_FIRST_MULTIPLIER)
    words.bitwise_xor_(_shift_right(words, 27)).mul_(_SECOND_MULTIPLIER)
    return words.bitwise_xor_(_shift_right(words, 31))


class Random:
    """The draws of N images, each from its own seed; each call of a method opens a new stream.

    Args:
        seeds: int64 (N,).
        domain: separates uses of one seed, such as corruption types.
    """

    def __init__(self, seeds: Tensor, domain: int = 0) -> None:
        self._keys = splitmix64(seeds, torch.full_like(seeds, domain))
        self._stream = 0

    def __len__(self) -> int:
        """The number of images."""
        return len(self._keys)

    @property
    def device(self) -> torch.device:
        """Where the draws are made."""
        return self._keys.device

    def words(self, *shape: int) -> Tensor:
        """Draw 64 random bits for each element.

        Args:
            shape: the shape of one image's draw.

        Returns:
            int64 (N, *shape), the elements of an image being words 0, 1, ... of its stream.
        """
        keys = splitmix64(self._keys, torch.full_like(self._keys, self._stream))
        self._stream += 1
        index = torch.arange(math.prod(shape), dtype=torch.int64, device=keys.device)
        return splitmix64(keys[:, None], index).view(len(keys), *shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw from U[low, high).

        Args:
            shape: the shape of one image's draw.
            low, high: the interval's ends.

        Returns:
            float64 (N, *shape), on a grid of 2^-53 of the interval.
        """
        unit = _shift_right(self.words(*shape), 11).to(torch.float64).mul_(2.0**-53)
        return unit.mul_(high - low).add_(low)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Draw uniformly from low, ..., high - 1, like NumPy's `integers`.

        Args:
            low, high: the range, `high` excluded.
            shape: the shape of one image's draw.

        Returns:
            int64 (N, *shape).
        """
        return self.uniform(*shape).mul_(high - low).floor_().to(torch.int64).add_(low)

    def normal(self, *shape: int, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """Draw from N(mean, std^2) by Box and Muller: sqrt(-2 ln u) cos(2 pi v).

        Args:
            shape: the shape of one image's draw.
            mean, std: of the distribution.

        Returns:
            float64 (N, *shape). u and v are the halves of one word, so no value lies further than
            6.7 standard deviations from the mean.
        """
        words = self.words(*shape)
        radius = _shift_right(words, 32).add_(1).to(torch.float64).mul_(2.0**-32)
        angle = words.bitwise_and_((1 << 32) - 1).to(torch.float64).mul_(2.0**-31 * math.pi)
        radius.log_().mul_(-2).sqrt_()
        return radius.mul_(angle.cos_()).mul_(std).add_(mean)
