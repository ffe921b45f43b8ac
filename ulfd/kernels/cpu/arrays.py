"""The native CPU kernel over NumPy arrays."""

from math import prod
from typing import Any

import numpy as np

from ulfd.broadcasting import memory_order
from ulfd.checks import dtype_name
from ulfd.gradients import Gradients, sum_to
from ulfd.kernels.cpu import buffers, library
from ulfd.losses import denominator

Array = np.ndarray[Any, Any]
LINE = 64  # bytes: outputs that begin on one can be written around the caches


def _aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Uninitialised memory that begins on a whole line."""
    size = prod(shape) * dtype.itemsize
    reused = buffers.take(size)
    if reused is not None:
        return np.frombuffer(reused, dtype, count=prod(shape)).reshape(shape)
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def compute(
    student: Array,
    teacher: Array,
    log_variance: Array | None,
    *,
    prior_weight: float,
    weight: float,
    reduction: str,
    beta: float,
    clamp: tuple[float, float] | None,
    upstream: Any = 1.0,
    gradients: bool = False,
    instructions: int = -1,
) -> tuple[Array, Gradients | None]:
    """The loss and, if asked for, its gradients, in their inputs' dtypes.

    All arrays are seen with their axes in the order of the student's memory, where a dense student
    is contiguous (channels-last ones too); what then is not contiguous is copied.
    """
    names = [
        dtype_name(array.dtype) for array in (student, teacher, log_variance) if array is not None
    ]
    computed = np.dtype("float64" if "float64" in names else "float32")
    order = memory_order(student.shape, [step // student.itemsize for step in student.strides])
    order = order or tuple(range(student.ndim))
    inputs = [np.asarray(array.transpose(order), order="C") for array in (student, teacher)]
    shape = inputs[0].shape
    loop = library.loop(shape, None)
    expanded = False
    if log_variance is not None:
        lead = (1,) * (student.ndim - log_variance.ndim)
        sigma = log_variance.reshape(lead + log_variance.shape).transpose(order)
        loop = library.loop(shape, sigma.shape)
        expanded = loop is None
        if expanded:  # its gradient is summed below, before it is rounded
            names[2] = computed.name
            loop = library.loop(shape, shape)
            inputs.append(np.array(np.broadcast_to(sigma, shape), dtype=computed, order="C"))
        else:
            inputs.append(np.asarray(sigma, order="C"))

    assert loop is not None
    loss, arriving = np.zeros((), computed), np.asarray(upstream, computed)
    outputs = [_aligned(array.shape, array.dtype) for array in inputs] if gradients else []
    absent: list[Any] = [None] * 3
    arrays = (*[*inputs, *absent][:3], arriving, loss, *[*outputs, *absent][:3])
    library.run(
        loop,
        pointers=[None if array is None else array.ctypes.data for array in arrays],
        dtypes=names,
        scale=weight / denominator(student.shape, reduction),
        prior_weight=prior_weight,
        beta=beta,
        clamp=clamp,
        threads=library.threads(),
        instructions=instructions,
    )
    if not gradients:
        return loss, None
    back = np.argsort(order)
    found = [array.transpose(back) for array in outputs[:2]]
    if log_variance is None:
        return loss, Gradients(found[0], found[1], None)
    by_sigma = outputs[2].transpose(back)
    if expanded:
        by_sigma = sum_to(by_sigma, log_variance.shape).astype(log_variance.dtype)
    return loss, Gradients(found[0], found[1], by_sigma.reshape(log_variance.shape))
