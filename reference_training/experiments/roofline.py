"""How long a training step takes on a device, operation by operation: the roofline model.

    t = max(FLOP / throughput, bytes / bandwidth) + call

of each operation that torch carries out, forward and backward, and the step's time is their sum
(Williams, Waterman and Patterson 2009, plus the fixed cost of a call). Every operand is moved once,
so it is the least time, and shares of it are better than shares of the FLOP: most operations of a
convolutional network wait for memory.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

TRANSPOSED = "transposed convolution"
LOSS = "ulfd"


class Device(NamedTuple):
    """What a device can do: a data sheet's figures, or measured ones."""

    throughput: float
    """FLOP/s of convolutions and matrix products."""
    transposed: float
    """FLOP/s of transposed convolutions, which are another algorithm on CPUs."""
    bandwidth: float
    """Bytes/s of reading and writing."""
    call: float
    """Seconds that an operation of torch takes on one element."""
    loss_call: float
    """The same of each of the loss's two operations, which go through Python."""


class GPU(NamedTuple):
    """A GPU's data sheet: dense tensor throughput by precision in 1e12 FLOP/s, bandwidth of its
    memory in 1e12 bytes/s, its size in GB."""

    bfloat16: float
    float32: float  # without TF32, as torch has it by default
    bandwidth: float
    memory: float

    def device(self, precision: str) -> Device:
        """As the roofline wants it."""
        throughput = 1e12 * (self.bfloat16 if precision == "bfloat16" else self.float32)
        return Device(throughput, throughput, 1e12 * self.bandwidth, KERNEL_SECONDS, KERNEL_SECONDS)


GPUS = {
    "H200": GPU(989, 67, 4.8, 141),
    "H100": GPU(989, 67, 3.35, 80),
    "A100-80GB": GPU(312, 19.5, 2.039, 80),
    "A100-40GB": GPU(312, 19.5, 1.555, 40),
    "L40S": GPU(362, 91.6, 0.864, 48),
    "RTX4090": GPU(165, 82.6, 1.008, 24),
}
"""By name; NVIDIA's data sheets (SXM where there are several), without sparsity."""

KERNEL_SECONDS = 3e-6
"""What starting and ending a kernel costs on a GPU whose queue is full: an assumption."""


class Operation(NamedTuple):
    """One call."""

    kind: str
    flops: int
    moved: int
    """Bytes read and written, every operand once."""

    def seconds(self, device: Device) -> float:
        """By the roofline."""
        rate = device.transposed if self.kind == TRANSPOSED else device.throughput
        call = device.loss_call if self.kind == LOSS else device.call
        return max(self.flops / rate, self.moved / device.bandwidth) + call


class Recorder(TorchDispatchMode):
    """Lists what torch carries out while it is active; on the meta device nothing is computed.

    >>> import torch
    >>> with Recorder() as recorder:
    ...     _ = torch.ones(2, 3, device="meta") @ torch.ones(3, 4, device="meta")
    >>> recorder.operations[-1]
    Operation(kind='mm', flops=48, moved=104)
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __torch_dispatch__(
        self, function: Any, types: Any, given: tuple[Any, ...] = (), named: Any = None
    ) -> Any:
        result = function(*given, **(named or {}))
        name = function.overloadpacket.__name__
        # Views and fresh memory cost no pass over it.
        if not (function.is_view or name == "detach" or "empty" in name):
            # What is changed in place is read and written; it is among both.
            moved = _bytes((given, named)) + _bytes(result)
            kind = LOSS if function.namespace == LOSS else name
            kind, flops = ARITHMETIC.get(name, lambda *_: (kind, 0))(given, result)
            self.operations.append(Operation(kind, flops, moved))
        return result


def _bytes(tree: Any) -> int:
    tensors = {id(leaf): leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _convolution(given: tuple[Any, ...], result: Tensor) -> tuple[str, int]:
    x, weight, transposed = given[0], given[1], given[6]
    return _layer(x if transposed else result, weight, transposed)


def _convolution_backward(given: tuple[Any, ...], result: Any) -> tuple[str, int]:
    gradient, x, weight, transposed, wanted = *given[:3], given[7], given[10]
    kind, flops = _layer(x if transposed else gradient, weight, transposed)
    return kind, flops * sum(wanted[:2])  # a first layer's input needs no gradient


def _layer(inner: Tensor, weight: Tensor, transposed: bool) -> tuple[str, int]:
    flops = 2 * inner.numel() * math.prod(weight.shape[1:])
    return TRANSPOSED if transposed else "convolution", flops


def _product(given: tuple[Any, ...], result: Tensor) -> tuple[str, int]:
    return "mm", 2 * result.numel() * given[-1].shape[0]


ARITHMETIC: dict[str, Callable[[tuple[Any, ...], Any], tuple[str, int]]] = {
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "mm": _product,
    "addmm": _product,
}
"""Kind and FLOP by torch's name, from the arguments and the result; everything else has so little
arithmetic that memory decides. torch's own counter takes the backward pass of a grouped convolution
for one without groups."""
