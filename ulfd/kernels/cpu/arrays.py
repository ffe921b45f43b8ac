"""The native CPU kernel over NumPy arrays."""

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ulfd.broadcasting import memory_order
from ulfd.checks import dtype_name
from ulfd.gradients import Gradients, sum_to
from ulfd.kernels.cpu import buffers, library
from ulfd.options import LossOptions

Array = np.ndarray[Any, Any]
LINE = 64  # bytes: outputs that begin on one can be written around the caches


def _address(array: Any) -> int:
    """Where a contiguous array begins."""
    try:  # a third of what `array.ctypes` costs; read-only and empty arrays have no such buffer
        return ctypes.addressof(ctypes.c_char.from_buffer(array))
    except (TypeError, ValueError):
        return int(array.ctypes.data)


def _aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Uninitialised memory that begins on a whole line."""
    size = prod(shape) * dtype.itemsize
    reused = buffers.take(size)
    if reused is not None:
        return np.frombuffer(reused, dtype, count=prod(shape)).reshape(shape)
    memory = np.empty(size + LINE, np.uint8)
    return np.ndarray(shape, dtype, memory, -_address(memory) % LINE)


@lru_cache(maxsize=1024)
def _axes(
    shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The order of the axes in dense memory, and the way back; None where it is their own."""
    order = memory_order(shape, [step // itemsize for step in strides])
    own = tuple(range(len(shape)))
    if order is None or order == own:
        return None
    return order, tuple(order.index(axis) for axis in own)


def compute(
    student: Array,
    teacher: Array,
    log_variance: Array | None,
    options: LossOptions,
    *,
    upstream: Any = 1.0,
    needs: Sequence[bool] = (False, False, False),
    instructions: int = -1,
) -> tuple[Array, Gradients]:
    """The loss and, where needed, its gradients by student, teacher and σ in their dtypes.

    All arrays are seen with their axes in the order of the student's memory, where a dense student
    is contiguous (channels-last ones too); what then is not contiguous is copied.
    """
    names = [
        dtype_name(array.dtype) for array in (student, teacher, log_variance) if array is not None
    ]
    computed = np.dtype("float64" if "float64" in names else "float32")
    axes = _axes(student.shape, student.strides, student.itemsize)

    def along_memory(array: Array) -> Array:
        return np.asarray(array if axes is None else array.transpose(axes[0]), order="C")

    inputs: list[Array | None] = [along_memory(student), along_memory(teacher)]
    shape = tuple(student.shape[axis] for axis in axes[0]) if axes else student.shape
    loop = library.loop(shape, None)
    expanded = False
    if log_variance is not None:
        lead = (1,) * (student.ndim - log_variance.ndim)
        sigma = along_memory(log_variance.reshape(lead + log_variance.shape))
        loop = library.loop(shape, sigma.shape)
        expanded = loop is None
        if expanded:  # its gradient is summed below, before it is rounded
            names[2] = computed.name
            loop = library.loop(shape, shape)
            inputs.append(np.array(np.broadcast_to(sigma, shape), dtype=computed, order="C"))
        else:
            inputs.append(sigma)
    else:
        inputs.append(None)

    assert loop is not None
    loss = np.empty((), computed)
    unscaled = type(upstream) is float and upstream == 1.0
    arriving = None if unscaled else np.asarray(upstream, computed)
    outputs = [
        _aligned(array.shape, array.dtype) if need and array is not None else None
        for array, need in zip(inputs, needs, strict=True)
    ]
    arrays = (*inputs, arriving, loss, *outputs)
    library.run(
        loop,
        pointers=[None if array is None else _address(array) for array in arrays],
        dtypes=names,
        shape=student.shape,
        options=options,
        threads=library.threads(),
        instructions=instructions,
    )
    if axes is not None:
        outputs = [None if array is None else array.transpose(axes[1]) for array in outputs]
    by_student, by_teacher, by_sigma = outputs
    if log_variance is not None and by_sigma is not None:
        if expanded:
            by_sigma = sum_to(by_sigma, log_variance.shape).astype(log_variance.dtype)
        by_sigma = by_sigma.reshape(log_variance.shape)
    return loss, Gradients(by_student, by_teacher, by_sigma)
