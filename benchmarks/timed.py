"""How long a module's forward and backward pass take where it is, within a larger network."""

import time

from torch import Tensor, nn


class Timed(nn.Module):
    """Notes the processor seconds of the newest forward and backward pass of a module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.forward_seconds = self.backward_seconds = 0.0

    def forward(self, *given: Tensor) -> Tensor:
        # Views of its own: their gradients arrive when this module's are done, before any other's.
        given = tuple(tensor.view_as(tensor) for tensor in given)
        started = time.process_time()
        result = self.inner(*given)
        self.forward_seconds = time.process_time() - started
        begun = 0.0

        def begin(gradient: Tensor) -> None:
            nonlocal begun
            begun = time.process_time()

        def end(gradient: Tensor) -> None:
            self.backward_seconds = time.process_time() - begun

        for tensor in given:
            tensor.register_hook(end)
        result = result.view_as(result)
        result.register_hook(begin)
        return result
