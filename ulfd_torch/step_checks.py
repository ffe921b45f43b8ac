"""The error messages of `SelfDistillation`: what was given, what was expected, how to fix it."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ulfd.options import check_member
from ulfd.uem import UEMSpec
from ulfd_torch.features import described


def check_parts(uem: object, loss: object, task_loss: object) -> None:
    """Raises TypeError unless all can be called as the step calls them."""
    for name, value, example in (
        ("uem", uem, "UEM(512)"),
        ("loss", loss, "ULFDLoss(weight=0.1)"),
        ("task_loss", task_loss, "nn.CrossEntropyLoss(label_smoothing=0.1)"),
    ):
        if value is not None and (isinstance(value, type) or not callable(value)):
            raise TypeError(
                f"SelfDistillation: {name} is {described(value)}, but must be a module, as "
                f"{name}={example}."
            )
    if not callable(loss):
        return
    try:
        check_member(getattr(loss, "member", None), uem)
    except ValueError as error:
        remedy = "give uem=UEM(channels)" if uem is None else "leave uem out"
        raise ValueError(f"SelfDistillation: {error} Here: {remedy}, or another loss.") from error
    try:
        signature = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss)
    except (TypeError, ValueError):  # it has none, as some functions written in C
        return
    try:
        signature.bind("student", "teacher", "log_variance")
    except TypeError as error:
        raise TypeError(
            f"SelfDistillation: loss is {described(loss)}, which cannot be called as "
            "loss(student, teacher, log_variance), log_variance being None without a UEM. Use "
            "ULFDLoss(weight=0.1), which is the mean squared error without a UEM, or wrap it in a "
            "function of these three."
        ) from error


def check_initialised(model: nn.Module) -> None:
    """Raises ValueError if the model has lazy layers without weights, of which none can be kept."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    if lazy := [name for name, tensor in tensors.items() if nn.parameter.is_lazy(tensor)]:
        raise ValueError(
            "SelfDistillation: the frozen teacher is a copy of the model as it is now, but "
            f"{lazy[0]!r} has no value yet; run the model on a batch of images first."
        )


def warn_of_a_large_uem(model: nn.Module, spec: UEMSpec) -> None:
    """Warns of a UEM with more weights than the model, where the default one has fewer."""
    weights = list(model.parameters())
    if any(nn.parameter.is_lazy(weight) for weight in weights):  # not known yet
        return
    model_size, size = sum(weight.numel() for weight in weights), spec.parameters()
    default = UEMSpec(spec.channels).parameters()
    if size > model_size and size > default:
        warnings.warn(
            f"SelfDistillation: the UEM has {size:,} weights, more than the network with its "
            f"{model_size:,}; UEM({spec.channels}), the default, has {default:,}.",
            stacklevel=3,
        )


def check_pairs(**given: Any) -> None:
    """Raises TypeError for what is no tensor, ValueError where the images are no pairs."""
    for name, value in given.items():
        if not isinstance(value, Tensor):
            kind = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
            raise TypeError(
                f"SelfDistillation: {name} is a {kind}, but must be a torch.Tensor; convert it "
                "with torch.as_tensor (images (B, 3, H, W), labels (B,))."
            )
    clean, degraded = given["clean"], given["degraded"]
    if clean.shape != degraded.shape:
        raise ValueError(
            f"SelfDistillation: clean images {tuple(clean.shape)} and degraded ones "
            f"{tuple(degraded.shape)} must be pairs of one shape."
        )


def logits_of(output: Any) -> Tensor:
    """The logits in what a model returns: itself, its `logits`, or its first tensor.

    Raises:
        TypeError: there are none.
    """
    if isinstance(output, Tensor):
        return output
    named = getattr(output, "logits", None)
    parts = (named,) if named is not None else output if isinstance(output, tuple | list) else ()
    found = next((part for part in parts if isinstance(part, Tensor)), None)
    if found is None:
        raise TypeError(
            f"SelfDistillation: the model returns a {type(output).__name__} without logits; "
            "return a tensor (B, classes), something with `.logits`, or a tuple that begins "
            "with them."
        )
    return found


def check_gradient(layer: str, z_hat: Tensor, logits: Tensor) -> None:
    """Raises RuntimeError if the model is trained, but not through ẑ."""
    if logits.requires_grad and not z_hat.requires_grad:
        raise RuntimeError(
            f"SelfDistillation: no gradient reaches the output of layer {layer!r}, although the "
            "model trains. It ran inside checkpoint(..., use_reentrant=True), for which pass "
            "use_reentrant=False, or under torch.no_grad(), or all that it depends on is frozen: "
            "tap a layer behind something that trains."
        )


def judged(task_loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    """The task loss.

    Raises:
        ValueError: it is a cross entropy, which does not take these labels.
    """
    try:
        return task_loss(logits, labels)
    except (IndexError, RuntimeError, ValueError) as error:
        entropy = task_loss is functional.cross_entropy or isinstance(
            task_loss, nn.CrossEntropyLoss
        )
        if not entropy or isinstance(error, torch.OutOfMemoryError) or logits.dim() < 2:
            raise
        batch, classes, *places = logits.shape
        dtype = str(labels.dtype).removeprefix("torch.")
        raise ValueError(
            f"SelfDistillation: labels are {dtype} {tuple(labels.shape)}, which the cross entropy "
            f"does not take for logits {tuple(logits.shape)} ({error}). Give class indices from 0 "
            f"to {classes - 1}, int64 {(batch, *places)}: .long(), .squeeze(1), or of one-hot "
            "vectors .argmax(1); probabilities in the logits' shape, floating point; or another "
            "task_loss."
        ) from error


def explained(images: Tensor, error: Exception) -> Exception | None:
    """A model's own error about images that it cannot take, with what to do."""
    if not images.is_floating_point() and "type" in str(error):
        return TypeError(
            f"SelfDistillation: images are {str(images.dtype).removeprefix('torch.')}, which the "
            "model does not take; convert both with .float() / 255, and normalise them."
        )
    if len(images) == 1 and "more than 1 value per channel" in str(error):
        return ValueError(
            "SelfDistillation: the model's batch normalisation cannot train on one image; the "
            "last batch of an epoch may be one: DataLoader(..., drop_last=True)."
        )
    return None
