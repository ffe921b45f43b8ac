"""The error messages, in one place: what was given, what was expected, how to fix it.

The checks see shapes, dtype names and devices only, so that every adapter shares them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

INPUTS = ("student", "teacher", "log_variance")
FLOATING = ("float16", "bfloat16", "float32", "float64")


def dtype_name(dtype: Any) -> str:
    """'float32' for `torch.float32`, `numpy.dtype("float32")` and JAX's dtypes alike."""
    return str(dtype).rsplit(".", 1)[-1]


def broadcasts_to(shape: Sequence[int], target: Sequence[int]) -> bool:
    """Whether an array of `shape` can be read as one of `target` without changing `target`."""
    if len(shape) > len(target):
        return False
    tail = target[len(target) - len(shape) :]
    return all(size in (1, full) for size, full in zip(shape, tail, strict=True))


def check_shapes(
    student: Sequence[int],
    teacher: Sequence[int],
    log_variance: Sequence[int] | None,
    reduction: str,
) -> None:
    """Raises ValueError if the shapes do not fit each other or the reduction."""
    if tuple(student) != tuple(teacher):
        column = [size for size in student if size != 1] == [size for size in teacher if size != 1]
        raise ValueError(
            f"ulfd_loss: student has shape {tuple(student)} but teacher {tuple(teacher)}; they "
            "must be equal, for a silent broadcast between them hides bugs. "
            + (
                f"If they are the same elements, give the teacher, the target, as "
                f"teacher.reshape({tuple(student)})."
                if column
                else "Project or resize one of them first."
            )
        )
    if log_variance is not None and not broadcasts_to(log_variance, student):
        raise ValueError(
            f"ulfd_loss: log_variance of shape {tuple(log_variance)} does not broadcast to the "
            f"features' shape {tuple(student)}; for predictions (N, D) give (N, D), (N, 1), (1, D) "
            "or one number; for features (B, C, H, W) give (B, C, H, W), (B, 1, H, W), "
            "(B, 1, 1, 1), (1, C, 1, 1) or one number, for (B, H, W, C) give (B, H, W, C), "
            "(B, H, W, 1), (B, 1, 1, 1), (1, 1, 1, C) or one number."
        )
    if reduction in ("mean", "batchmean") and 0 in student:
        raise ValueError(
            f"ulfd_loss: the {reduction} of an empty batch {tuple(student)} is 0/0; skip the "
            "batch, or use reduction='sum'."
        )
    if reduction == "batchmean" and len(student) == 0:
        raise ValueError(
            "ulfd_loss: reduction='batchmean' divides by the first axis, but the features have "
            "none (shape ()); use 'mean' or 'sum'."
        )


def check_unmasked(**arrays: Any) -> None:
    """Raises TypeError for NumPy's masked arrays, whose mask every conversion drops."""
    for name, array in arrays.items():
        if type(array).__module__.startswith("numpy.ma"):
            raise TypeError(
                f"ulfd_loss: {name} is a masked array, whose mask would be lost; give "
                f"{name}.filled(value), or leave the masked elements out of all inputs."
            )


def check_upstream(upstream: Any, shape: Sequence[int], loss: Sequence[int]) -> None:
    """Raises unless what arrives at the loss is a real number or an array in the loss's shape.

    Args:
        shape: that of `upstream`.
        loss: that of the loss.
    Raises:
        TypeError: it is None or complex.
        ValueError: it has another shape.
    """
    if isinstance(upstream, (int, float)):  # at every step of most trainings
        return
    if upstream is None:  # NumPy would take it for NaN
        raise TypeError(
            "value_and_grad: upstream is None, but must be a number, or an array in the loss's "
            "shape; leave it out for 1."
        )
    if isinstance(upstream, complex) or "complex" in dtype_name(getattr(upstream, "dtype", "")):
        raise TypeError("value_and_grad: upstream is complex, but must be real, as the loss is.")
    if tuple(shape) != tuple(loss):
        raise ValueError(
            f"value_and_grad: upstream has shape {tuple(shape)}, but the loss {tuple(loss)}; they "
            "must be equal."
        )


def check_dtypes(where: str = "ulfd_loss", /, **dtypes: Any) -> None:
    """Raises TypeError unless every named dtype is a real floating-point one."""
    for name, dtype in dtypes.items():
        if dtype_name(dtype) not in FLOATING:
            raise TypeError(
                f"{where}: {name} has dtype {dtype_name(dtype)}, but a floating-point dtype "
                f"{FLOATING} is needed; convert it first."
            )


def check_devices(**devices: Any) -> None:
    """Raises ValueError unless every named device is the same."""
    (first, home), *others = devices.items()
    for name, device in others:
        if device != home:
            raise ValueError(
                f"ulfd_loss: {first} is on {home} but {name} on {device}; move them to one device."
            )


def check_weights(
    where: str, given: Any, expected: Mapping[str, Sequence[int]], what: str, remedy: str
) -> None:
    """Raises unless `given` holds arrays of the expected names and shapes, and nothing else.

    Args:
        where: what the user gave, as "params" or a file.
        what: what was expected, as "the weights of UEMSpec(...)".
        remedy: how to fix it.
    Raises:
        TypeError: `given` is no dictionary.
        ValueError: its names or shapes differ.
    """
    if not isinstance(given, Mapping):
        kind = "an array" if hasattr(given, "shape") else f"a {type(given).__name__}"
        raise TypeError(f"UEM: {where} is {kind}, but must be {what}, a dictionary; {remedy}.")
    shapes = {name: getattr(array, "shape", type(array).__name__) for name, array in given.items()}
    if shapes != expected:
        names = sorted({*shapes, *expected}, key=lambda name: (name in expected, str(name)))
        wrong = [name for name in names if shapes.get(name) != expected.get(name)]
        raise ValueError(
            f"UEM: {where} does not hold {what}: {len(wrong)} names or shapes differ, the first is "
            f"{wrong[0]!r} with shape {shapes.get(wrong[0])} instead of {expected.get(wrong[0])}; "
            f"{remedy}."
        )
