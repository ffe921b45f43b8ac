"""How long to train, by which optimiser, and with which learning rate when."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from reference_training.config import Recipe

Factor = Callable[[float], float]
"""Of the learning rate, as a function of the progress in [0, 1)."""
MOMENTUM = 0.9
"""Of SGD, in every recipe that uses it."""


@dataclass(frozen=True)
class Optimizer:
    """A rule that changes the weights."""

    make: Callable[..., torch.optim.Optimizer]
    moments: int
    """Tensors of a weight's size that it keeps for each weight."""


OPTIMIZERS: Mapping[str, Optimizer] = {
    "adam": Optimizer(torch.optim.Adam, 2),
    "sgd": Optimizer(partial(torch.optim.SGD, momentum=MOMENTUM), 1),
    "nesterov": Optimizer(partial(torch.optim.SGD, momentum=MOMENTUM, nesterov=True), 1),
}


@dataclass(frozen=True)
class Schedule:
    """How long to train, and how."""

    iterations: int
    learning_rate: float
    factor: Factor
    weight_decay: float = 0.0
    optimizer: str = "adam"
    """A key of `OPTIMIZERS`."""

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        return self.learning_rate * self.factor(iteration / self.iterations)


def stepwise(milestones: tuple[float, ...]) -> Factor:
    """Divides by 10 after each of the milestones, fractions of the whole (paper, Sec. 4)."""
    return lambda progress: 0.1 ** sum(progress >= milestone for milestone in milestones)


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2017)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


DECAYS: Mapping[str, Callable[[Recipe], Factor]] = {
    "steps": lambda recipe: stepwise(recipe.milestones),
    "cosine": lambda recipe: cosine,
}


def recipe_schedule(recipe: Recipe) -> Schedule:
    """What a recipe says about time and rates.

    Raises:
        ValueError: an unknown optimiser or decay, or a warm-up that is no fraction.
    """
    for option, known in (("optimizer", OPTIMIZERS), ("decay", DECAYS)):
        if getattr(recipe, option) not in known:
            raise ValueError(
                f"{option} is {getattr(recipe, option)!r}; use one of {', '.join(known)}."
            )
    if not 0 <= recipe.warm_up < 1:
        raise ValueError(f"warm_up is {recipe.warm_up}, but must be a fraction in [0, 1).")
    decay, first = DECAYS[recipe.decay](recipe), recipe.warm_up * recipe.iterations

    def factor(progress: float) -> float:
        done = progress * recipe.iterations
        return decay(progress) * (min(1.0, (done + 1) / first) if first else 1.0)

    return Schedule(
        recipe.iterations, recipe.learning_rate, factor, recipe.weight_decay, recipe.optimizer
    )
