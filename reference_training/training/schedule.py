"""How long to train, and with which learning rate when."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How long to train and with which learning rate, as a function of the iteration."""

    iterations: int
    learning_rate: float
    factor: Callable[[float], float]  # of the progress in [0, 1)
    weight_decay: float = 0.0

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        return self.learning_rate * self.factor(iteration / self.iterations)


def stepwise(milestones: tuple[float, ...]) -> Callable[[float], float]:
    """Divides by 10 after each of the milestones, fractions of the whole (paper, Sec. 4)."""
    return lambda progress: 0.1 ** sum(progress >= milestone for milestone in milestones)


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2017)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))
