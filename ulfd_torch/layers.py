"""What a model's layers put out, found by one forward pass that leaves the model as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ulfd.uem import LAYOUTS, check_layout
from ulfd_torch.features import FeatureTap, unwrapped


@contextmanager
def _left_as_it_was(model: nn.Module, example: Tensor) -> Iterator[None]:
    """Evaluation without gradients; modes and random numbers come back."""
    if not isinstance(example, Tensor):
        raise TypeError(
            f"example is a {type(example).__name__}, but must be a tensor of images (B, 3, H, W), "
            "as the model takes them."
        )
    modes = [(module, module.training) for module in model.modules()]
    devices = [example.device] if example.is_cuda else []
    model.eval()
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        torch.clear_autocast_cache()  # older torch keeps the casts made here, without gradient
        for module, mode in modes:
            module.training = mode


def _run(model: nn.Module, example: Tensor) -> Any:
    """What the model makes of the example.

    Raises:
        ValueError: it does not take it.
    """
    try:
        return model(example)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"the model does not take the example, {example.dtype} {tuple(example.shape)} on "
            f"{example.device} ({str(error).strip().splitlines()[0]}); give a batch of images as "
            "in its training: (B, 3, H, W), one image with .unsqueeze(0), floating point, "
            "normalised, on the model's device."
        ) from error


def layer_output(model: nn.Module, layer: str, example: Tensor) -> Tensor:
    """What the layer puts out for a batch of images; raises as `FeatureTap`."""
    with FeatureTap(model, layer) as tap, _left_as_it_was(model, example):
        _run(unwrapped(model), example)
        return tap.take()


def layout_of(
    model: nn.Module, layer: str, feature: Tensor, example: Tensor, layout: str | None
) -> str:
    """The layout of a layer's output: the named one, or else the only one that can be.

    Height and width of a feature map (B, C, H, W) or (B, H, W, C) are in the proportion of the
    images'. Tokens (B, T, C) have as many channels as some normalisation of the network, whereas
    none has as many as there are tokens.

    Raises:
        ValueError: both or neither can be, or the output has not three or four axes.
    """
    shape = tuple(feature.shape)
    if layout is not None:
        check_layout(layout)
    if len(shape) not in {len(each) for each in ([layout] if layout else LAYOUTS)}:
        raise ValueError(
            f"UEM: layer {layer!r} puts out {shape}, but a UEM needs {layout or 'features'} "
            "(B, C, H, W), (B, H, W, C) or tokens (B, T, C); ulfd_torch.suggest_layers(model, "
            "images) names layers before the pooling."
        )
    if layout is not None:
        return layout
    if len(shape) == 3:
        normalized = {getattr(module, "normalized_shape", None) for module in model.modules()}
        certain = (shape[2],) in normalized and (shape[1],) not in normalized
        found = ["NTC"] if certain else []
    else:
        sides = {"NCHW": shape[2:], "NHWC": shape[1:3]}
        images = tuple(example.shape[2:])
        found = [name for name, pair in sides.items() if _in_proportion(pair, images)]
    if len(found) != 1:
        names = " or ".join(repr(each) for each in LAYOUTS if len(each) == len(shape))
        raise ValueError(
            f"UEM: layer {layer!r} puts out {shape}, which does not tell its channels from its "
            f"places; name the layout: UEM.for_layer(..., layout={names}), N is the batch, C "
            "the channels, T the tokens. Features (B, C, T) no UEM takes: transpose them."
        )
    return found[0]


def _in_proportion(pair: tuple[int, ...], images: tuple[int, ...]) -> bool:
    """Whether a map of these sides can come from images of those, by one stride for both."""
    if len(images) != 2:
        return False
    (rows, columns), (height, width) = pair, images
    # A stride rounds each side by one place at most; of square images both in the same way.
    slack = 0 if height == width else height + width
    return abs(rows * width - columns * height) <= slack


class SuggestedLayer(NamedTuple):
    """A layer's name in `model.named_modules()`, and the shape of its output."""

    name: str
    shape: tuple[int, ...]


def suggest_layers(model: nn.Module, example: Tensor) -> list[SuggestedLayer]:
    """Layers of a classifier that suit distillation, the last feature before the pooling first.

    Of each shape (C, H, W), (H, W, C) or (T, C) the last layer that has weights and stands at most
    two names deep, by one forward pass that leaves the model as it was. Left out are those within
    a classifier that see pooled features, the logits, and layers whose output is changed in place.

    >>> from torchvision.models import resnet18
    >>> suggest_layers(resnet18(), torch.rand(2, 3, 64, 64))[0]
    SuggestedLayer(name='layer4', shape=(2, 512, 2, 2))

    Args:
        model: any classifier; wrapped in DistributedDataParallel or compiled is fine.
        example: a batch of images (B, 3, H, W), as the model takes them.
    Raises:
        ValueError: no layer puts out features, or the model does not take the example.
        TypeError: example is no tensor.
    """
    plain, seen, handles = unwrapped(model), dict[str, tuple[Tensor, int]](), []

    def record(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            seen.pop(name, None)  # a layer that runs twice stands where it ran last
            seen[name] = output, output._version

    for name, module in plain.named_modules():
        if name and name.count(".") <= 1 and next(module.parameters(), None) is not None:
            handles.append(module.register_forward_hook(partial(record, name)))
    try:
        with _left_as_it_was(plain, example):
            result = _run(plain, example)
    finally:
        for handle in handles:
            handle.remove()
    flat = {name for name, (output, _) in seen.items() if output.dim() == 2}
    last: dict[tuple[int, ...], SuggestedLayer] = {}
    for name, (output, version) in seen.items():
        shape = tuple(output.shape)
        logits = isinstance(result, Tensor) and output.data_ptr() == result.data_ptr()
        pooled = name.split(".")[0] in flat and shape[2:] == (1, 1)
        if output.dim() in (3, 4) and output._version == version and not (pooled or logits):
            last.pop(shape, None)
            last[shape] = SuggestedLayer(name, shape)
    if not last:
        raise ValueError(
            f"suggest_layers: no layer of {type(plain).__name__} puts out features (B, C, H, W), "
            "(B, H, W, C) or tokens (B, T, C)."
        )
    return list(reversed(last.values()))
