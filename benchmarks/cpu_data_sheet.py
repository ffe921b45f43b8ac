"""A data sheet of this CPU, measured: what the roofline of a training step needs to know."""

import copy
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks.timed import Timed
from reference_training.experiments.roofline import TRANSPOSED, Device
from ulfd_torch import ULFDLoss

CACHES = 128 << 20  # bytes; more than those of any processor that this is meant for
CALLS = 1000
Candidate = tuple[Callable[[], float], float]  # seconds, and of how much


def _seconds(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def _layer(layer: nn.Conv2d | nn.ConvTranspose2d, shape: torch.Size) -> Candidate:
    """Forward and backward pass of a layer on images of a shape, and their FLOP."""
    layer = copy.deepcopy(layer)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
    upstream = torch.randn_like(layer(x))

    def both() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x).backward(upstream)

    def run() -> float:
        both()
        return _seconds(both)

    inner = x if layer.transposed else upstream
    return run, 3 * 2 * inner.numel() * layer.weight[0].numel()


def _addition(like: Tensor) -> Candidate:
    """Bytes of sums whose operands come from memory, not from a cache."""
    pool = [torch.randn_like(like) for _ in range(2 + CACHES // (like.numel() * 4))]

    def run() -> float:
        return _seconds(lambda: [a + b for a, b in zip(pool[::2], pool[1::2], strict=False)])

    return run, 3 * 4 * like.numel() * (len(pool) // 2)


def _call() -> Candidate:
    one = torch.ones(1)
    return lambda: _seconds(lambda: [one + one for _ in range(CALLS)]), CALLS


def _loss() -> Candidate:
    """The loss's two calls on one element."""
    timed = Timed(ULFDLoss(weight=0.1, clamp=(-10, 10)))
    few = [torch.ones(1, 1, 1, 1, requires_grad=True) for _ in range(3)]

    def run() -> float:
        timed(*few).backward()
        return timed.forward_seconds + timed.backward_seconds

    return run, 2


class DataSheet:
    """Measures the layers and the memory at the sizes of a step.

    Args:
        feature: (B, C, H, W), the one that is distilled.
        layers: typical ones, and the shapes of their inputs.
    """

    def __init__(self, feature: Tensor, layers: Sequence[tuple[nn.Module, torch.Size]]) -> None:
        self.candidates = {"call": _call(), "addition": _addition(feature)}
        for layer, shape in layers:
            candidate = _layer(layer, shape)
            kind = TRANSPOSED if layer.transposed else "convolution"
            self.candidates[f"{kind} {len(self.candidates)}: {layer}, {tuple(shape)}"] = candidate
        # After a layer, as in a step: its code is called once a step and not in the caches.
        self.candidates["loss on one element"] = _loss()

    def measure(self) -> dict[str, float]:
        """Seconds of each candidate, once."""
        return {name: run() for name, (run, _) in self.candidates.items()}

    def device(self, seconds: dict[str, float]) -> Device:
        """The data sheet, of such seconds."""

        def rate(name: str) -> float:
            amounts, times = zip(
                *(
                    (amount, seconds[found])
                    for found, (_, amount) in self.candidates.items()
                    if found.split(" ")[0] == name
                ),
                strict=True,
            )
            return sum(amounts) / sum(times)

        return Device(
            throughput=rate("convolution"),
            transposed=rate("transposed"),
            bandwidth=rate("addition"),
            call=1 / rate("call"),
            loss_call=1 / rate("loss"),
        )
