"""`FeatureTap`: a named layer's output from any model, without changing the model."""

from types import TracebackType
from typing import Any

from torch import Tensor, nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, DataParallel and torch.compile's wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in ("DistributedDataParallel", "DataParallel"):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def find_layer(model: nn.Module, layer: str) -> nn.Module:
    """The submodule called `layer`, as in `dict(model.named_modules())`.

    Raises:
        ValueError: there is none; the message lists the model's top-level layers.
    """
    modules = dict(unwrapped(model).named_modules())
    if not layer or layer not in modules:
        top = [name for name, _ in unwrapped(model).named_children()]
        raise ValueError(
            f"FeatureTap: the model has no layer {layer!r}; its top-level layers are {top} "
            "(deeper ones are named 'outer.inner')."
        )
    return modules[layer]


class FeatureTap:
    """Keeps the output of one layer of a model, by a forward hook.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> with FeatureTap(model, "1") as tap:
    ...     logits = model(torch.rand(3, 4))
    ...     tap.take().shape
    torch.Size([3, 8])

    Create the tap before `torch.compile` and before the first step: a compiled model ignores
    hooks that come later.

    Args:
        model: any module; wrapped in DistributedDataParallel or compiled is fine.
        layer: the layer's name in `model.named_modules()`, without the wrappers' prefixes.
    Raises:
        ValueError: the model has no such layer.
    """

    def __init__(self, model: nn.Module, layer: str) -> None:
        self.layer = layer
        self._feature: Tensor | None = None
        self._handle = find_layer(model, layer).register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise TypeError(
                f"FeatureTap: layer {self.layer!r} returns a {type(output).__name__}, not a "
                "tensor; tap one of its parts."
            )
        self._feature = output

    def take(self) -> Tensor:
        """The layer's output in the last forward pass; each may be taken once.

        Raises:
            RuntimeError: the layer has not run since the last take.
        """
        if self._feature is None:
            raise RuntimeError(
                f"FeatureTap: layer {self.layer!r} saw nothing since the last take(). Either the "
                "model has not run, it does not use this layer, or it was compiled before the "
                "tap was made (make the tap first, then torch.compile)."
            )
        feature, self._feature = self._feature, None
        return feature

    def close(self) -> None:
        """Removes the hook and forgets the feature."""
        self._handle.remove()
        self._feature = None

    def __enter__(self) -> "FeatureTap":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
