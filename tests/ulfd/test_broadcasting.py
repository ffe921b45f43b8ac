"""The memory plan, exhaustively: walking its runs visits σ exactly as NumPy's broadcasting does."""

import itertools
import math

import numpy as np
import pytest

from ulfd.broadcasting import Run, memory_order, plan, reduced_axes

SHAPES = [(), (1,), (3,), (2, 3), (1, 4), (2, 3, 4), (2, 1, 3, 2), (2, 3, 2, 2), (1, 1, 1, 1)]


def walk(runs, kept_values):
    """σ for every element of memory, from the runs and the flat σ in its own memory order."""
    kept = [run.size for run in runs if run.kept]
    indices = np.arange(math.prod(kept)).reshape([run.size if run.kept else 1 for run in runs])
    full = np.broadcast_to(indices, [run.size for run in runs])
    return kept_values[full.ravel()]


@pytest.mark.parametrize("shape", SHAPES)
def test_plan_visits_sigma_as_broadcasting_does(shape):
    for kept in itertools.product([False, True], repeat=len(shape)):
        sigma_shape = tuple(size if keep else 1 for size, keep in zip(shape, kept, strict=True))
        for order in itertools.permutations(range(len(shape))):
            runs = plan(shape, sigma_shape, order)
            sigma = np.arange(math.prod(sigma_shape)).reshape(sigma_shape)
            in_memory = np.transpose(np.broadcast_to(sigma, shape), order).ravel()
            assert np.array_equal(walk(runs, np.transpose(sigma, order).ravel()), in_memory)
            assert math.prod(run.size for run in runs) == math.prod(shape)
            # fewest runs: neighbours differ, and no run is trivial unless it is the only one
            assert all(a.kept != b.kept for a, b in itertools.pairwise(runs))
            assert len(runs) == 1 or all(run.size > 1 for run in runs)


def test_the_first_class_shapes():
    nchw, channels_last = (8, 64, 7, 7), (0, 2, 3, 1)
    assert plan(nchw, nchw) == (Run(25088, True),)
    assert plan(nchw, (1, 1, 1, 1)) == plan(nchw, ()) == (Run(25088, False),)
    assert plan(nchw, (8, 1, 1, 1)) == (Run(8, True), Run(3136, False))
    assert plan(nchw, (8, 1, 7, 7)) == (Run(8, True), Run(64, False), Run(49, True))
    assert plan(nchw, (1, 64, 1, 1)) == (Run(8, False), Run(64, True), Run(49, False))
    assert plan(nchw, (8, 1, 7, 7), channels_last) == (Run(392, True), Run(64, False))
    assert plan(nchw, (1, 64, 1, 1), channels_last) == (Run(392, False), Run(64, True))
    assert plan((4, 16, 32), (4, 16, 1)) == (Run(64, True), Run(32, False))


@pytest.mark.parametrize("shape", SHAPES)
def test_reduced_axes_give_sigma_back(shape):
    for kept in itertools.product([False, True], repeat=len(shape)):
        sigma_shape = tuple(size if keep else 1 for size, keep in zip(shape, kept, strict=True))
        axes = reduced_axes(shape, sigma_shape)
        assert np.ones(shape).sum(axis=axes, keepdims=True).shape == sigma_shape


def test_lower_rank_counts_from_the_right():
    assert reduced_axes((2, 3, 4), (3, 1)) == (0, 2)
    assert plan((2, 3, 4), (3, 4)) == (Run(2, False), Run(12, True))


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match="does not broadcast"):
        plan((2, 3), (2,))


def test_memory_order():
    array = np.zeros((2, 3, 4, 5), np.float32)
    for order in itertools.permutations(range(4)):
        permuted = array.transpose(order)
        strides = [stride // 4 for stride in permuted.strides]
        found = memory_order(permuted.shape, strides)
        assert [permuted.shape[axis] for axis in found] == [2, 3, 4, 5]
    assert memory_order((2, 3), (6, 2)) is None  # gaps
    assert memory_order((2, 3), (0, 1)) is None  # overlaps, as after expand
    assert memory_order((4, 1, 3), (3, 999, 1)) is not None  # a stride that nobody takes
    assert memory_order((), ()) == ()
