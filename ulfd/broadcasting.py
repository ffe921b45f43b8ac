"""How a log-variance shape maps onto a feature shape and its memory order.

Kernels walk over memory, not over axes. `plan` therefore lists the features' axes in the order of
memory (outermost first), drops those of size 1, says for each whether σ varies along it ("kept")
or is broadcast (and its gradient summed: "reduced"), and merges neighbours that agree. What is
left is the shortest description of the loop: full σ is one kept run, one number one reduced run,
(B, 1, H, W) in NCHW memory [B kept][C reduced][HW kept], in channels-last memory [BHW kept][C
reduced].
"""

from collections.abc import Sequence
from typing import NamedTuple

from ulfd.checks import broadcasts_to


class Run(NamedTuple):
    """Neighbouring axes that σ treats alike: how many elements, and whether σ varies along them."""

    size: int
    kept: bool


def _padded(shape: Sequence[int], rank: int) -> tuple[int, ...]:
    return (1,) * (rank - len(shape)) + tuple(shape)


def reduced_axes(feature_shape: Sequence[int], log_variance_shape: Sequence[int]) -> tuple:
    """The axes of the features over which σ's gradient is summed.

    >>> reduced_axes((8, 64, 7, 7), (8, 1, 7, 7))
    (1,)

    Raises:
        ValueError: the shapes do not broadcast.
    """
    if not broadcasts_to(log_variance_shape, feature_shape):
        raise ValueError(f"{tuple(log_variance_shape)} does not broadcast to {feature_shape}.")
    padded = _padded(log_variance_shape, len(feature_shape))
    return tuple(axis for axis, size in enumerate(padded) if size != feature_shape[axis])


def memory_order(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...] | None:
    """The axes from the outermost to the innermost in memory, or None if memory is not dense.

    Dense means that the elements fill one stretch of memory without gaps or overlaps, in any
    order of the axes: contiguous, channels-last, or any permutation of these.

    >>> memory_order((2, 3, 4, 4), (48, 1, 12, 3))  # channels-last
    (0, 2, 3, 1)

    Args:
        shape: of the array.
        strides: of the array, in elements.
    """
    # Axes of size 1 may carry any stride; ordering by (stride, size) puts them where they do no
    # harm, and they are not checked.
    axes = sorted(range(len(shape)), key=lambda axis: (-strides[axis], -shape[axis]))
    expected = 1
    for axis in reversed(axes):
        if shape[axis] != 1:
            if strides[axis] != expected:
                return None
            expected *= shape[axis]
    return tuple(axes)


def plan(
    feature_shape: Sequence[int],
    log_variance_shape: Sequence[int],
    order: Sequence[int] | None = None,
) -> tuple[Run, ...]:
    """The loop over the features' memory as the fewest runs of kept and reduced axes.

    >>> plan((8, 64, 7, 7), (8, 1, 7, 7))
    (Run(size=8, kept=True), Run(size=64, kept=False), Run(size=49, kept=True))
    >>> plan((8, 64, 7, 7), (1, 64, 1, 1), order=(0, 2, 3, 1))
    (Run(size=392, kept=False), Run(size=64, kept=True))

    Args:
        feature_shape: the features' shape.
        log_variance_shape: σ's shape, which broadcasts to it.
        order: the axes from the outermost to the innermost in memory; None is contiguous.
    Returns:
        the runs, outermost first; their sizes multiply to the number of elements. A single
        element is one kept run of size 1.
    Raises:
        ValueError: the shapes do not broadcast.
    """
    reduced = set(reduced_axes(feature_shape, log_variance_shape))
    runs: list[Run] = []
    for axis in range(len(feature_shape)) if order is None else order:
        size, kept = feature_shape[axis], axis not in reduced
        if size == 1:
            continue
        if runs and runs[-1].kept == kept:
            runs[-1] = Run(runs[-1].size * size, kept)
        else:
            runs.append(Run(size, kept))
    return tuple(runs) or (Run(1, True),)
