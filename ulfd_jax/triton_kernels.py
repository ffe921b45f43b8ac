"""The kernels of `ulfd.kernels.triton_fused` as jax-triton can launch them.

jax-triton passes input pointers, then output pointers, then compile-time constants: no pointer can
be left out, and a runtime integer would come without the alignment that wide words need. So
every pointer is given here, a stand-in where one is missing, and GIVEN says which are real; the
integers are constants, which costs nothing, for JAX compiles anew for every shape anyway.
"""

import triton
import triton.language as tl

from ulfd.kernels import triton_fused

_over_rows = triton_fused.over_rows
_over_columns = triton_fused.over_columns
_finish = triton_fused.finish


@triton.jit
def over_rows(student, teacher, log_variance, upstream, by_student, by_teacher, by_sigma, losses,
              rows: tl.constexpr, length: tl.constexpr, chunks: tl.constexpr,
              scale_bits: tl.constexpr, SIGMA: tl.constexpr, HEIGHT: tl.constexpr,
              WIDTH: tl.constexpr, SINGLE: tl.constexpr, ALIGN: tl.constexpr, K: tl.constexpr,
              BETA: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr,
              GIVEN: tl.constexpr):  # fmt: skip
    """`triton_fused.over_rows`; GIVEN: σ, upstream, by_student, by_teacher, by_sigma, losses."""
    _over_rows(
        student, teacher, log_variance if GIVEN[0] else None, upstream if GIVEN[1] else None,
        by_student if GIVEN[2] else None, by_teacher if GIVEN[3] else None,
        by_sigma if GIVEN[4] else None, losses if GIVEN[5] else None,
        tl.full((), rows, tl.int64), tl.full((), length, tl.int64),
        tl.full((), chunks, tl.int32), tl.full((), scale_bits, tl.int32),
        SIGMA, HEIGHT, WIDTH, SINGLE, ALIGN, K, BETA, LOW, HIGH,
    )  # fmt: skip


@triton.jit
def over_columns(student, teacher, log_variance, upstream, by_student, by_teacher, by_sigma,
                 losses, length: tl.constexpr, chunks: tl.constexpr, steps: tl.constexpr,
                 scale_bits: tl.constexpr, KEPT: tl.constexpr, INNER: tl.constexpr,
                 PERIOD: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
                 SINGLE: tl.constexpr, ALIGN: tl.constexpr, STAGES: tl.constexpr,
                 K: tl.constexpr, BETA: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr,
                 GIVEN: tl.constexpr):  # fmt: skip
    """`triton_fused.over_columns`; GIVEN as in `over_rows`."""
    _over_columns(
        student, teacher, log_variance, upstream if GIVEN[1] else None,
        by_student if GIVEN[2] else None, by_teacher if GIVEN[3] else None,
        by_sigma if GIVEN[4] else None, losses if GIVEN[5] else None,
        tl.full((), length, tl.int64), tl.full((), chunks, tl.int32),
        tl.full((), steps, tl.int32), tl.full((), scale_bits, tl.int32),
        KEPT, INNER, PERIOD, HEIGHT, WIDTH, SINGLE, ALIGN, STAGES, K, BETA, LOW, HIGH,
    )  # fmt: skip


@triton.jit
def finish(losses, sums, loss, by_sigma, programs: tl.constexpr, outputs: tl.constexpr,
           repeats: tl.constexpr, kept: tl.constexpr, scale_bits: tl.constexpr,
           INNER: tl.constexpr, TERMS: tl.constexpr, OUTPUTS: tl.constexpr,
           GIVEN: tl.constexpr):  # fmt: skip
    """`triton_fused.finish`; GIVEN: the loss, σ's gradient."""
    _finish(
        losses if GIVEN[0] else None, sums if GIVEN[1] else None, loss if GIVEN[0] else None,
        by_sigma if GIVEN[1] else None, tl.full((), programs, tl.int64),
        tl.full((), outputs, tl.int64), tl.full((), repeats, tl.int32),
        tl.full((), kept, tl.int64), tl.full((), scale_bits, tl.int32), INNER, TERMS, OUTPUTS,
    )  # fmt: skip


KERNELS = {"over_rows": over_rows, "over_columns": over_columns}
