"""The pool of the native kernel's outputs: memory is used again, and never while anyone has it."""

import gc
import io
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

import ulfd
import ulfd_torch
from ulfd.kernels.cpu import buffers, library

pytestmark = pytest.mark.skipif(library.LIBRARY is None, reason="no native kernel")
SHAPE = (4, 512, 16, 16)  # 2 MiB of float32
SIZE = 4 * int(np.prod(SHAPE))


@pytest.fixture(autouse=True)
def empty_pool(monkeypatch):
    monkeypatch.delenv("ULFD_POOL_MIB", raising=False)
    monkeypatch.setattr(buffers, "IDLE", 600.0)
    gc.collect()
    buffers.clear()
    yield
    buffers.clear()


def inputs(seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=SHAPE).astype(np.float32) for _ in range(3)]


def by_numpy(arrays):
    _, found = ulfd.value_and_grad(*arrays)
    return [found.student, found.teacher, found.log_variance]


def by_torch(arrays):
    _, found = ulfd_torch.value_and_grad(*map(torch.from_numpy, arrays))
    return [found.student, found.teacher, found.log_variance]


def address(array):
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data_ptr()


@pytest.fixture(params=[by_numpy, by_torch])
def compute(request):
    return request.param


def test_memory_is_used_again(compute):
    first = compute(inputs())
    addresses = {address(array) for array in first}
    assert len(addresses) == 3
    assert buffers.held() == 0
    del first
    assert buffers.held() == 3 * SIZE
    again = compute(inputs())
    assert {address(array) for array in again} == addresses
    assert buffers.held() == 0


KEEPERS = {
    "itself": lambda array: array,
    "a view": lambda array: array[1:, 3],
    "a view of another dtype": lambda array: (
        array.view(np.int32) if isinstance(array, np.ndarray) else array.view(torch.int32)
    ),
    "a transposed part": lambda array: array.swapaxes(0, 1)[5, 1:3],
    "the other framework's": lambda array: (
        torch.from_numpy(array) if isinstance(array, np.ndarray) else array.numpy()
    ),
    "through DLPack": lambda array: (
        torch.from_dlpack(array) if isinstance(array, np.ndarray) else np.from_dlpack(array)
    ),
    "a memoryview": lambda array: memoryview(np.asarray(array)),
    "a tensor of its storage": lambda array: torch.empty(0).set_(
        torch.as_tensor(array).untyped_storage()
    ),
}


@pytest.mark.parametrize("keeper", KEEPERS.values(), ids=KEEPERS.keys())
def test_never_while_anyone_has_it(compute, keeper):
    """What is left of the first outputs does not change when others are computed."""
    arrays = inputs()
    kept = [keeper(array) for array in compute(arrays)]
    gc.collect()
    assert buffers.held() == 0
    before = [np.asarray(one).copy() for one in kept]
    for seed in range(1, 4):
        compute(inputs(seed))
    for one, other in zip(before, kept, strict=True):
        np.testing.assert_array_equal(one, np.asarray(other))
    del kept, other
    gc.collect()
    assert buffers.held() >= 3 * SIZE


def test_what_autograd_holds_is_nobody_elses():
    """`.grad`, and the gradients that a graph has saved."""
    student, teacher, sigma = (torch.from_numpy(array) for array in inputs())
    student.requires_grad_()
    ulfd_torch.ulfd_loss(student, teacher, sigma).backward()
    expected = student.grad.clone()
    doubled = ulfd_torch.value_and_grad(student, teacher, sigma)[1].student * 2
    for seed in range(1, 4):
        by_torch(inputs(seed))
    torch.testing.assert_close(student.grad, expected, rtol=0, atol=0)
    torch.testing.assert_close(doubled, 2 * expected, rtol=0, atol=0)


def test_torch_sees_an_ordinary_tensor():
    gradient = by_torch(inputs())[0]
    assert not gradient._is_view()
    assert gradient.is_contiguous()
    assert gradient.data_ptr() % 64 == 0
    copy = gradient.clone()
    file = io.BytesIO()
    torch.save(gradient, file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=True), copy, rtol=0, atol=0)
    assert buffers.held() == 2 * SIZE
    gradient.share_memory_()  # moves it; what it had goes back
    assert buffers.held() == 3 * SIZE
    torch.testing.assert_close(gradient, copy, rtol=0, atol=0)
    last = by_torch(inputs())[2]
    last.mul_(2).resize_(3, 5)
    assert last.shape == (3, 5)
    with torch.inference_mode():
        by_torch(inputs())


def test_the_limit(monkeypatch, compute):
    monkeypatch.setenv("ULFD_POOL_MIB", "4")
    buffers.clear()
    compute(inputs())
    assert 0 < buffers.held() <= 4 << 20
    monkeypatch.setenv("ULFD_POOL_MIB", "0")
    buffers.clear()
    kept = compute(inputs())
    assert {address(array) % 4096 for array in kept} != {0}
    monkeypatch.setenv("ULFD_POOL_MIB", "much")
    buffers.clear()
    with pytest.raises(ValueError, match="ULFD_POOL_MIB='much' is no size"):
        compute(inputs())


def test_small_outputs_are_left_to_the_c_library(compute):
    compute([array[:1, :64] for array in inputs()])
    assert buffers.held() == 0


def test_it_empties_itself(monkeypatch, compute):
    monkeypatch.setattr(buffers, "IDLE", 0.05)
    late = compute(inputs())[0]
    compute(inputs())
    assert buffers.held() >= 3 * SIZE
    deadline = time.monotonic() + 10
    while buffers.held() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert buffers.held() == 0
    time.sleep(0.2)
    del late
    assert buffers.held() == 0, "kept with nobody left to empty the pool"


def test_an_exception_loses_nothing(monkeypatch, compute):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(library, "run", fail)
    for _ in range(2):
        with pytest.raises(MemoryError):
            compute(inputs())
    gc.collect()
    assert buffers.held() == 3 * SIZE


def test_threads_get_memory_of_their_own(compute):
    expected = {
        seed: [np.asarray(one).copy() for one in compute(inputs(seed))] for seed in range(4)
    }
    wrong = []

    def work(seed):
        arrays = inputs(seed)
        for _ in range(8):
            found = compute(arrays)
            wrong.extend(
                seed for one, other in zip(found, expected[seed], strict=True)
                if not np.array_equal(np.asarray(one), other)
            )  # fmt: skip

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_begins_with_none():
    """Even if another thread of the parent was in the midst of the pool."""
    program = """
import os
from tests.ulfd.kernels.test_buffers import by_numpy, inputs, np
from ulfd.kernels.cpu import buffers
kept, arrays = by_numpy(inputs()), inputs(1)
expected = [np.array(one) for one in kept]
by_numpy(arrays)
assert buffers.held()
buffers._pool._lock.acquire()
child = os.fork()
if child == 0:
    assert buffers.held() == 0
    for _ in range(2):
        by_numpy(arrays)
    assert buffers.held()
    assert all(map(np.array_equal, kept, expected))
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert all(map(np.array_equal, kept, expected))
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "the interpreter complained as it ended"
