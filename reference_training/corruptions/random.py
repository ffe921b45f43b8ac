"""Random numbers that belong to an image, not to a batch: SplitMix64, counter-based, in torch.

A draw is a pure function of (seed, domain, stream, element index). Neither the neighbours in a
batch, nor the order, nor torch's global generators can change it; integer words are the same on
every device. The few numbers that steer an image's corruption are drawn on the CPU, so that no
step ever waits for a GPU to hand one back; what is drawn for every pixel, a "field", is drawn on
the images' device, two 32-bit draws from each word.

Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from functools import lru_cache

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
# A shift to the right and a factor, of each of the finaliser's steps.
_STEPS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
_CPU = torch.device("cpu")


def _signed(word: int) -> int:
    """The 64-bit `word` as torch's int64 holds it."""
    return word - (1 << 64) if word >> 63 else word


def _mix(words: Tensor) -> Tensor:
    """SplitMix64's finaliser, in place."""
    shifted = torch.empty_like(words)
    for bits, factor in _STEPS:
        # torch's shift copies the sign bit.
        torch.bitwise_right_shift(words, bits, out=shifted).bitwise_and_((1 << (64 - bits)) - 1)
        words.bitwise_xor_(shifted)
        if factor != 1:
            words.mul_(_signed(factor))
    return words


def _word(state: int, index: int) -> int:
    """`splitmix64` of one word, as Python's unsigned integers: for a few, faster than tensors."""
    word = state + (index + 1) * _GAMMA & _MASK
    for bits, factor in _STEPS:
        word = (word ^ word >> bits) * factor & _MASK
    return word


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
    return _mix(state + (index + 1) * _signed(_GAMMA))


@lru_cache(maxsize=16)
def _steps(count: int, device: torch.device) -> Tensor:
    """(index + 1) gamma for the first `count` words: int64 (count,)."""
    return torch.arange(1, count + 1, dtype=torch.int64, device=device).mul_(_signed(_GAMMA))


class Random:
    """The draws of N images, each from its own seed; each call of a method opens a new stream.

    Args:
        seeds: int64 (N,).
        domain: separates uses of one seed, such as corruption types; one, or one for each.
        device: where fields are drawn; None is the seeds' device.
    """

    def __init__(
        self, seeds: Tensor, domain: int | Sequence[int] = 0, device: torch.device | None = None
    ) -> None:
        self.device = seeds.device if device is None else device
        domains = [domain] * len(seeds) if isinstance(domain, int) else domain
        self._keys = [_word(*each) for each in zip(seeds.tolist(), domains, strict=True)]
        self._stream, self._together = 0, 1

    def __len__(self) -> int:
        """The number of images, times that of streams drawn from together."""
        return len(self._keys) * self._together

    def streams(self, count: int) -> Random:
        """The next `count` streams of the N images, drawn from together as of count N images."""
        together = copy(self)
        together._together = count
        self._stream += count
        return together

    def _open_stream(self) -> list[int]:
        """The state from which each image's next stream starts."""
        first, self._stream = self._stream, self._stream + self._together
        return [_word(key, stream) for stream in range(first, self._stream) for key in self._keys]

    def words(self, count: int) -> Tensor:
        """Draw `count` times 64 random bits for each image.

        Args:
            count: words 0, 1, ... of each image's stream.

        Returns:
            int64 (N, count), on the fields' device.
        """
        states = [_signed(state) for state in self._open_stream()]
        keys = torch.tensor(states, dtype=torch.int64, device=_CPU).to(self.device)
        return _mix(keys[:, None] + _steps(count, self.device))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw a few numbers from U[low, high), on the CPU.

        Args:
            shape: the shape of one image's draw.
            low, high: the interval's ends.

        Returns:
            float64 (N, *shape), on a grid of 2^-53 of the interval.
        """
        draws = [
            (_word(state, index) >> 11) * 2.0**-53 * (high - low) + low
            for state in self._open_stream()
            for index in range(math.prod(shape))
        ]
        return torch.tensor(draws, dtype=torch.float64, device=_CPU).view(len(self), *shape)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Draw a few numbers from low, ..., high - 1, like NumPy's `integers`, on the CPU.

        Args:
            low, high: the range, `high` excluded.
            shape: the shape of one image's draw.

        Returns:
            int64 (N, *shape).
        """
        return self.uniform(*shape).mul_(high - low).floor_().to(torch.int64).add_(low)

    def bits_field(self, *shape: int) -> Tensor:
        """Draw 32 random bits for each element.

        Args:
            shape: the shape of one image's draw.

        Returns:
            int32 (N, *shape): the low and the high half of word 0, of word 1, ...
        """
        count = math.prod(shape)
        halves = self.words((count + 1) // 2).view(torch.int32)
        return halves[:, :count].reshape(len(self), *shape)

    def uniform_field(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw from U[low, high).

        Args:
            shape: the shape of one image's draw.
            low, high: the interval's ends.

        Returns:
            float32 (N, *shape), on a grid of 2^-24 of the interval.
        """
        unit = self.bits24_field(*shape).to(torch.float32)
        return unit.mul_((high - low) * 2.0**-24).add_(low)

    def integer_field(self, low: int | Tensor, high: int | Tensor, *shape: int) -> Tensor:
        """Draw from low, ..., high - 1, each to within 2^-24 as likely as the others.

        Args:
            low, high: the range, `high` excluded; at most 128 numbers; or of each image's on the
                fields' device, int32 that broadcasts with the result.
            shape: the shape of one image's draw.

        Returns:
            int32 (N, *shape).
        """
        return self.bits24_field(*shape).mul_(high - low).bitwise_right_shift_(24).add_(low)

    def bits24_field(self, *shape: int) -> Tensor:
        """Draw 24 random bits for each element, as `bits_field` draws 32: int32 (N, *shape)."""
        return (self.bits_field(*shape) >> 8).bitwise_and_((1 << 24) - 1)

    def normal_field(
        self, *shape: int, mean: float | Tensor = 0.0, std: float | Tensor = 1.0
    ) -> Tensor:
        """Draw from N(mean, std^2) by Box and Muller: sqrt(-2 ln u) times cos(v) and sin(v).

        Args:
            shape: the shape of one image's draw.
            mean, std: of the distribution; float64 with N numbers are one for each image.

        Returns:
            float32 (N, *shape): all cosines, then all sines. u has 31 bits of a word and v the
            other 32, so no value lies further than 6.6 standard deviations from the mean.
        """
        count = math.prod(shape)
        words = self.words((count + 1) // 2)
        angle = words.to(torch.int32).to(torch.float32).mul_(math.pi * 2.0**-31)
        high = words.bitwise_right_shift_(32).to(torch.int32).bitwise_and_((1 << 31) - 1)
        variance, mean = (
            each.view(-1, 1).to(torch.float32).to(self.device) if isinstance(each, Tensor) else each
            for each in (-2 * std**2, mean)
        )
        radius = high.to(torch.float32).add_(1).mul_(2.0**-31).log_().mul_(variance).sqrt_()
        pairs = torch.empty(len(self), 2, angle.shape[1], dtype=torch.float32, device=self.device)
        torch.cos(angle, out=pairs[:, 0])
        torch.sin(angle, out=pairs[:, 1])
        pairs.mul_(radius[:, None]).add_(mean[:, None] if isinstance(mean, Tensor) else mean)
        return pairs.flatten(1)[:, :count].reshape(len(self), *shape)
