"""`FeatureTap`: a named layer's output from any model, without changing the model."""

from collections.abc import Callable
from contextlib import nullcontext
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn


def described(value: object) -> str:
    """A value in an error message: its class where it is a module, whose repr is long."""
    if isinstance(value, nn.Module):
        return f"the module {type(value).__name__}(...)"
    return f"the class {value.__name__}" if isinstance(value, type) else repr(value)


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
        ValueError: there is none; the message lists the model's top-level layers, and names
            `suggest_layers`.
        TypeError: the model is no module, or the layer no name.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"FeatureTap: model is {described(model)}, but must be a torch.nn.Module.")
    if isinstance(layer, (list, tuple)):
        raise TypeError(
            f"FeatureTap: layer is {layer!r}, but a tap has one layer; several at once, each "
            "with a tap and a UEM of its own, are in examples/multi_layer.py."
        )
    if not isinstance(layer, str):
        raise TypeError(
            f"FeatureTap: layer is {described(layer)}, but must be a name of "
            "model.named_modules(), as 'layer4'."
        )
    modules = dict(unwrapped(model).named_modules())
    if not layer or layer not in modules:
        top = [name for name, _ in unwrapped(model).named_children()]
        raise ValueError(
            f"FeatureTap: the model has no layer {layer!r}; its top-level layers are {top} "
            "(deeper ones are named 'outer.inner'); ulfd_torch.suggest_layers(model, images) names "
            "those that suit, with their shapes."
        )
    return modules[layer]


class _Hook:
    """A forward hook that keeps its layer's last output, while it is active."""

    def __init__(self, layer: str) -> None:
        self.layer = layer
        self.active = True
        self.feature: Tensor | None = None
        self.version: int | None = None  # of the feature's memory when the layer put it out

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self.active:
            return
        if not isinstance(output, Tensor):
            raise TypeError(
                f"FeatureTap: layer {self.layer!r} returns a {type(output).__name__}, not a "
                "tensor; tap one of its parts."
            )
        # Compilers and tensors of inference mode count no versions. A copy is right there too, and
        # a compiler leaves out the needless one.
        if torch.compiler.is_compiling() or output.is_inference():
            self.feature, self.version = output.clone(), None
        else:
            self.feature, self.version = output, output._version

    def take(self) -> Tensor | None:
        """The output, once.

        Raises:
            RuntimeError: what followed the layer changed it in place.
        """
        feature, self.feature = self.feature, None
        if feature is None or self.version is None or feature._version == self.version:
            return feature
        raise RuntimeError(
            f"FeatureTap: what the model does after layer {self.layer!r} changes its output in "
            "place, so that it is no longer the layer's. Set inplace=False in what follows (as "
            "`model.relu.inplace = False`), replace `x += y` by `x = x + y` there, or tap the "
            "layer that makes the change."
        )

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # A model that is saved or copied whole must neither need this package nor take the
        # feature along: what is left of the hook there takes any arguments and does nothing.
        return getattr, (nullcontext(), "__exit__")


class FeatureTap:
    """Keeps the output of one layer of a model, by a forward hook.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> with FeatureTap(model, "1") as tap:
    ...     logits = model(torch.rand(3, 4))
    ...     tap.take().shape
    torch.Size([3, 8])

    Create the tap before `torch.compile` and before the first step: a compiled model ignores
    hooks that come later. A model that is saved or copied whole leaves the tap behind; an object
    that holds both, as `SelfDistillation` does, keeps it.

    Args:
        model: any module; wrapped in DistributedDataParallel or compiled is fine.
        layer: the layer's name in `model.named_modules()`, without the wrappers' prefixes.
    Raises:
        ValueError: the model has no such layer.
        TypeError: the model is no module, or the layer no name.
    """

    def __init__(self, model: nn.Module, layer: str) -> None:
        self.layer = layer
        self._module = find_layer(model, layer)
        self._register()

    def _register(self) -> None:
        self._hook = _Hook(self.layer)
        self._handle = self._module.register_forward_hook(self._hook)

    def __getstate__(self) -> dict[str, Any]:
        return {"layer": self.layer, "_module": self._module, "active": self._hook.active}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.layer, self._module = state["layer"], state["_module"]
        self._register()
        self._hook.active = state["active"]

    def take(self) -> Tensor:
        """The layer's output in the last forward pass; each may be taken once.

        Raises:
            RuntimeError: the layer has not run since the last take, or what followed it changed
                its output in place.
        """
        feature = self._hook.take()
        if feature is None:
            raise RuntimeError(
                f"FeatureTap: layer {self.layer!r} saw nothing since the last take(). Either the "
                "model has not run, it does not use this layer, the tap was closed, or the model "
                "was compiled before the tap was made (make the tap first, then torch.compile)."
            )
        return feature

    def resume(self) -> None:
        """Keeps what the layer puts out from now on, as a new tap does."""
        self._hook.active = True

    def pause(self) -> None:
        """Forgets the feature and keeps none, nor its graph, until `resume`."""
        self._hook.active = False
        self._hook.feature = None

    def close(self) -> None:
        """Removes the hook for good and forgets the feature."""
        self._handle.remove()
        self._hook.feature = None

    def __enter__(self) -> "FeatureTap":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
