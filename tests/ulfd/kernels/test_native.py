"""The native CPU kernel: what `numerics` and `operators` cannot ask of every kernel.

Its instruction sets, threads, forks, memory that lies badly, offsets beyond 32 bits, and the
installation without a compiler.
"""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ulfd
from tests.oracle import expected, log_variance_shapes, make_case
from ulfd.kernels import registry
from ulfd.kernels.cpu import arrays, library
from ulfd.options import LossOptions, loss_options

ALL = (True, True, True)
OPTIONS = LossOptions(weight=0.1, reduction="sum")
SHARED = (6, 750, 15, 15)  # enough work for 16 threads
FORMS = {  # σ's shapes for it: each form of the loop, whole vectors and parts of vectors
    "full": SHARED,
    "rows": (6, 750, 1, 1),
    "long rows": (6, 1, 1, 1),
    "summed rows": (1, 750, 1, 1),
    "columns": (6, 1, 15, 15),
    "wide columns": (1, 750, 15, 15),
    "one": (),
}


def features(shape, dtype="float32", seed=0):
    """Student and teacher."""
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype(dtype)


def same(first, second):
    """Whether two results agree bit for bit."""
    pairs = [(first[0], second[0]), *zip(first[1], second[1], strict=True)]
    return all(a is b is None or a.tobytes() == b.tobytes() for a, b in pairs)


# ------------------------------------------------------------------------- the exponential function


@pytest.mark.parametrize("name", library.instruction_sets())
def test_exp_is_within_two_units_in_the_last_place(name):
    """∂/∂σ with d = 0, k = 1 and β = 1 is exp(σ). Every 4099th of all float32 numbers above −170,
    below which exp(−σ/2) overflows, against float64."""
    bits = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32)
    sigma = bits.view(np.float32)
    sigma = sigma[~(sigma < -170)]
    zeros = np.zeros_like(sigma)
    options = LossOptions(prior_weight=1.0, beta=1.0, reduction="sum")
    number = library.instruction_sets()[name]
    _, found = arrays.compute(zeros, zeros, sigma, options, needs=ALL, instructions=number)
    ours = found.log_variance.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        truth = np.exp(sigma.astype(np.float64))
        rounded = truth.astype(np.float32)
    assert np.array_equal(np.isnan(ours), np.isnan(truth))
    overflows = np.isinf(rounded)
    assert np.array_equal(np.isinf(ours), overflows)
    finite = ~(overflows | np.isnan(truth))
    unit = np.spacing(rounded[finite]).astype(np.float64)
    assert np.abs(ours[finite] - truth[finite]).max(initial=0) > 0
    assert (np.abs(ours[finite] - truth[finite]) <= 2 * unit).all()


def test_subnormal_numbers_are_kept_whatever_the_caller_does_with_them():
    student, teacher = features((4 * 70_000,))  # for several threads
    sigma = np.full_like(student, 100.0)
    options = OPTIONS._replace(prior_weight=0.0)
    expected = arrays.compute(student, teacher, sigma, options, needs=ALL)
    smallest = np.finfo(np.float32).tiny
    assert 0 < np.abs(expected[1].student).max() < smallest
    torch = pytest.importorskip("torch")
    assert torch.set_flush_denormal(True)
    try:
        found = arrays.compute(student, teacher, sigma, options, needs=ALL)
        still = (torch.full((1,), float(smallest)) * 0.5).item() == 0
    finally:
        torch.set_flush_denormal(False)
    assert same(found, expected)
    assert still, "the kernel took the caller's choice away"


# -------------------------------------------------------- each instruction set against the oracle


@pytest.mark.parametrize("name", library.instruction_sets())
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_instruction_set_matches_the_oracle(name, dtype):
    number = library.instruction_sets()[name]
    for shape in ((4, 6, 5, 3), (2, 33), (3, 1100), (1,)):
        for sigma in [None, *log_variance_shapes(shape)]:
            case = make_case(
                shape, sigma, lambda array: np.asarray(array).astype(dtype).astype(float)
            )
            given = [
                None if array is None else np.asarray(array).astype(dtype)
                for array in (case.student, case.teacher, case.log_variance)
            ]
            options = {"weight": 0.1, "beta": 0.5, "clamp": (-2.0, 0.5), "reduction": "mean"}
            loss, found = arrays.compute(
                *given, loss_options(**options), upstream=0.375, needs=ALL, instructions=number
            )
            computed = "float64" if dtype == "float64" else "float32"
            stored = (dtype,) * 3
            reference = expected(case, 0.375, computed=computed, stored=stored, **options)
            assert not reference.errors((loss, *found))


def test_an_unknown_instruction_set_is_refused():
    student, teacher = features((3, 4))
    with pytest.raises(ValueError, match="no instruction set 7"):
        arrays.compute(student, teacher, None, OPTIONS, instructions=7)


# ------------------------------------------------------------------ threads: the same bits, always


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_bits_do_not_depend_on_the_number_of_threads(form, dtype, monkeypatch):
    student, teacher = features(SHARED, dtype)
    sigma = features(FORMS[form], dtype, seed=1)[0]
    results = []
    for threads in (1, 2, 3, 16, 2):
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        assert library.threads() == threads
        results.append(ulfd.value_and_grad(student, teacher, sigma, implementation="native"))
    assert all(same(results[0], other) for other in results[1:])


def test_streaming_stores_change_nothing(monkeypatch):
    """Outputs beyond 16 MiB go around the caches; the same numbers in two halves do not."""
    shape = (2, 3, 1024, 512)
    student, teacher = features(shape)
    sigma = features(shape, seed=1)[0]
    _, whole = ulfd.value_and_grad(student, teacher, sigma, reduction="sum")
    assert whole.student.nbytes + whole.teacher.nbytes + whole.log_variance.nbytes >= 2 * 2**24
    for half in range(2):
        _, part = ulfd.value_and_grad(
            *(array[half : half + 1, :1] for array in (student, teacher, sigma)), reduction="sum"
        )
        for big, small in zip(whole, part, strict=True):
            assert np.array_equal(big[half : half + 1, :1], small)


def test_many_callers_at_once():
    cases = [(*features((40, 30, 8, 8), seed=seed), features((40, 1, 8, 8), seed=seed)[0])
             for seed in range(16)]  # fmt: skip
    alone = [ulfd.value_and_grad(*case) for case in cases]
    barrier = threading.Barrier(8)

    def call(case):
        barrier.wait()
        return ulfd.value_and_grad(*case)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(call, cases))
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
@pytest.mark.parametrize("processors", ["all", "one"])
def test_threads_may_run_where_the_process_may(processors):
    """A helper that steps aside from its caller's processor is bound to none afterwards."""
    code = """
import os
from pathlib import Path
import numpy as np
import ulfd

def threads():
    return {{int(task.name) for task in Path("/proc/self/task").iterdir()}}

everywhere = os.sched_getaffinity(0)
bound = everywhere if "{processors}" == "all" else {{min(everywhere)}}
os.sched_setaffinity(0, bound)
others = threads() - {{os.getpid()}}  # as OpenBLAS's
student = np.ones((4, 256, 255), np.float32)
for _ in range(200):
    ulfd.value_and_grad(student, student, student, implementation="native")
ours = threads() - others
assert len(ours) == 4, ours
assert all(os.sched_getaffinity(thread) == bound for thread in ours)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "4"}
    command = [sys.executable, "-c", code.format(processors=processors)]
    subprocess.run(command, check=True, env=environment)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes_too(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    case = (*features((40, 30, 8, 8)), features((40, 30, 8, 8), seed=1)[0])
    before = ulfd.value_and_grad(*case)
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        os._exit(0 if same(before, ulfd.value_and_grad(*case)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert same(before, ulfd.value_and_grad(*case))


# ------------------------------------------------------------------------------ memory as it comes


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_misaligned_strided_and_overlapping_memory(data):
    """Views into one stretch of bytes, at any byte, with gaps, reversed, over one another."""
    shape = tuple(data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    dtype = np.dtype(data.draw(st.sampled_from(("float16", "float32", "float64"))))
    numbers = np.random.default_rng(0).normal(size=4096).astype(dtype)

    def view():
        memory = np.empty(numbers.nbytes + 8, np.uint8)
        start = data.draw(st.integers(0, 7))
        memory[start : start + numbers.nbytes] = np.frombuffer(numbers.tobytes(), np.uint8)
        flat = memory[start : start + numbers.nbytes].view(dtype)
        steps = [data.draw(st.sampled_from((1, 2, 0, 9))) for _ in shape]
        strides = [step * dtype.itemsize for step in steps]
        array = np.lib.stride_tricks.as_strided(flat, shape, strides)
        return array[::-1] if data.draw(st.booleans()) else array

    student = view()
    teacher = data.draw(st.sampled_from((view(), student)))
    sigma = view()[tuple(slice(0, data.draw(st.sampled_from((1, None)))) for _ in shape)]
    given = (student, teacher, sigma)
    # Copies lie in another order, in which sums are taken; nothing else may differ.
    tolerance = {"float16": 2.0**-9, "float32": 1e-5, "float64": 1e-13}[dtype.name]
    native, plain = (
        ulfd.value_and_grad(*inputs, reduction="sum", implementation="native")
        for inputs in (given, [np.array(array, order="C") for array in given])
    )
    for found, copied in ((native[0], plain[0]), *zip(native[1], plain[1], strict=True)):
        np.testing.assert_allclose(found, copied, rtol=tolerance, atol=tolerance)


def test_offsets_beyond_32_bits():
    """2³¹ + 3 elements of which the last three differ: zero pages that cost no memory."""
    size = 2**31 + 3
    student, teacher = (np.zeros(size, np.float16) for _ in range(2))
    student[-3:] = 2
    assert ulfd.ulfd_loss(student, teacher, reduction="sum", implementation="native") == 12


# -------------------------------------------------------------------- where the kernel is not there


@pytest.fixture
def forgetful():
    """What was chosen before says nothing about the test, nor does the test about what follows."""
    registry.chosen.cache_clear()
    yield
    registry.chosen.cache_clear()


@pytest.mark.usefixtures("forgetful")
def test_without_the_library_the_composite_form_serves(monkeypatch):
    monkeypatch.setattr(library, "MISSING", "its C++ library is not installed; reinstall ulfd")
    student, teacher = features((3, 4))
    assert np.isfinite(ulfd.ulfd_loss(student, teacher))
    with pytest.raises(ValueError, match=r"'native' cannot serve.*not installed; reinstall ulfd"):
        ulfd.ulfd_loss(student, teacher, implementation="native")
    assert registry.KERNELS["native"].unavailable() == library.MISSING


def test_every_element_is_refused_with_the_reason():
    student, teacher = features((3, 4))
    with pytest.raises(ValueError, match="nothing to fuse"):
        ulfd.ulfd_loss(student, teacher, reduction="none", implementation="native")
