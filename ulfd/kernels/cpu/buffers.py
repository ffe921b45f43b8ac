"""Memory for the large outputs of the native kernel, used again: fresh memory costs more than it.

The first touch of a page is a fault of the processor, and for outputs of tens of megabytes these
take longer than all the arithmetic and traffic. So an output's memory goes back to a pool when the
last tensor, array or view of it is gone, as GPUs' allocators do it, and serves the next output of
the same size. The pool empties itself when nothing was asked of it for a few seconds.

ULFD_POOL_MIB in the environment is the most that the pool keeps, 512 by default; 0 turns it off. It
is read when the pool begins, and after `clear`.
"""

import mmap
import os
import time
from collections import OrderedDict
from functools import cache
from threading import Lock, Thread
from typing import Any

import numpy as np

SMALLEST = 1 << 20  # bytes; smaller blocks the C library keeps by itself
IDLE = 5.0  # seconds
_SUPPORTED = hasattr(mmap, "MAP_PRIVATE") and hasattr(mmap, "MAP_ANONYMOUS")


@cache
def _limit() -> int:
    """The pool's size in bytes."""
    given = os.environ.get("ULFD_POOL_MIB", "512")
    if not given.isdecimal():
        raise ValueError(
            f"ULFD_POOL_MIB={given!r} is no size; set it to the MiB that ulfd may keep for the "
            "native kernel's outputs, or to 0."
        )
    return int(given) << 20


class _Pool:
    """Mappings that nobody uses, the longest unused first.

    Whoever finds the lock taken goes without, for `give` may be called by the garbage collector in
    the midst of `take`. Only the thread that empties the pool waits; without it nothing is kept.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._free: OrderedDict[int, mmap.mmap] = OrderedDict()  # by identity
        self._watched = self._used = False

    def take(self, size: int) -> mmap.mmap | None:
        """A mapping of this size that is nobody's any more."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            self._used = True
            if not self._watched:
                self._watched = True
                Thread(target=self._watch, name="ulfd-pool", daemon=True).start()
            for key, mapping in reversed(self._free.items()):
                if len(mapping) == size:
                    return self._free.pop(key)
            return None
        finally:
            self._lock.release()

    def give(self, mapping: mmap.mmap) -> None:
        """Keeps a mapping, and drops the longest unused ones beyond the limit."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._watched:
                self._free[id(mapping)] = mapping
            while self.held() > _limit():
                self._free.popitem(last=False)
        finally:
            self._lock.release()

    def _watch(self) -> None:
        while self._watched:
            time.sleep(IDLE)
            with self._lock:
                if not self._used:
                    self._free.clear()
                    self._watched = False
                self._used = False

    def held(self) -> int:
        """Bytes in the pool."""
        return sum(map(len, self._free.values()))


_pool = _Pool()


def clear() -> None:
    """Gives all that the pool keeps back to the system."""
    global _pool
    _pool = _Pool()
    _limit.cache_clear()


# A child has no thread that empties the pool, and writing to what it shares with its parent would
# copy it first.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=clear)


class _Lease(np.ndarray[Any, Any]):
    """A mapping as bytes; it goes back to the pool with whatever was made of them."""

    mapping: mmap.mmap | None = None

    def __del__(self) -> None:
        if self.mapping is not None and _pool is not None:  # None while Python shuts down
            _pool.give(self.mapping)


def take(size: int) -> memoryview | None:
    """Uninitialised bytes that begin on a page; None where the pool does not serve.

    What `numpy.frombuffer` or `torch.frombuffer` makes of them keeps them from the pool.
    """
    if not _SUPPORTED or size < SMALLEST or _limit() == 0:
        return None
    size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    mapping = _pool.take(size)
    if mapping is None:
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    lease = np.frombuffer(mapping, np.uint8).view(_Lease)
    lease.mapping = mapping
    return lease.data  # not itself: a NumPy view of it would hold only the memory under it


def held() -> int:
    """Bytes that the pool keeps for later outputs."""
    return _pool.held()
