"""A step's and its optimiser's tensors by name, as a checkpoint holds them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

STEP, OPTIMIZER = "step.", "optimizer."


def strip_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def tensors_of(step: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, buffers, and the optimiser's moments."""
    tensors = {f"{STEP}{name}": value for name, value in step.state_dict().items()}
    return tensors | {
        f"{OPTIMIZER}{index}.{name}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def load_tensors(
    tensors: Mapping[str, Tensor], step: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Puts back what `tensors_of` returned.

    Args:
        tensors: by name.
        step: changed in place.
        optimizer: of all weights of the step in one group; changed in place.
    """
    step.load_state_dict(strip_prefix(STEP, tensors))
    (group,) = optimizer.param_groups
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in strip_prefix(OPTIMIZER, tensors).items():
        index, key = name.split(".")
        weight = group["params"][int(index)]
        if value.shape == weight.shape:  # the fused kernel wants all in one memory order
            value = torch.empty_like(weight).copy_(value)
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
