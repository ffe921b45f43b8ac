"""What a piece of code asks of torch: how many operations, and how much memory at a time."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Cost(TorchDispatchMode):
    """Counts torch's operations, views left out, and the most bytes of theirs alive at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.bytes = self.peak = 0
        self._holders: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = function(*args, **(kwargs or {}))
        if function.is_view:
            return result
        self.operations += 1
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                self.bytes += 0 if key in self._holders else size
                self._holders[key] = self._holders.get(key, 0) + 1
                weakref.finalize(tensor, self._release, key, size)
        self.peak = max(self.peak, self.bytes)
        return result

    def _release(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self.bytes -= size
