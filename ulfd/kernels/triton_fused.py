"""The fused loss and its gradients in Triton: one pass over memory.

With e = exp(−σ/2), r = (ẑ − z)·e, b = exp(β·σ) and the factor g = λ · upstream / denominator,
every element contributes (Eq. 9 of Yang et al. 2022; `ulfd.losses`, `ulfd.gradients`)

    ℓ = b·(r² + k·σ)      ∂/∂ẑ = 2·g·b·r·e      ∂/∂z = −∂/∂ẑ      ∂/∂σ = g·b·(k − r²),

the last one zero where the clamp acts. All of it needs ẑ, z and σ once: read 3, write 2 or 3.
Over n elements that share a σ, with Q = Σ r², the sums are Σℓ = b·(Q + n·k·σ) and
Σ∂/∂σ = g·b·(n·k − Q): inside the loop there is only Q. A σ of every element is the case n = 1.

Layout. Features are one stretch of memory (any order of the axes). Where neighbours share a σ,
a program owns a piece of a row and sums along it (`over_rows`; a σ for every element, and no σ,
are one long row). Where σ varies along the columns and repeats down the rows, a program owns some
columns and sums down them (`over_columns`). What several programs share is left as partial sums,
which `finish` adds in a fixed order: no atomics, so two runs agree bit for bit.

Numbers. Inputs are raised to float32 on load; each gradient is rounded once, on its store. The
factor g multiplies in float32 before that, so float16 gradients do not underflow. exp(x) is the
hardware's 2^(x·log2 e): relative error at most (|x| + 2)·2⁻²² (PTX ISA, ex2.approx.f32: 2⁻²²;
the rounded product adds |x|·2⁻²³). e is finite for every σ > −176, so that 0·∞ does not occur
there; exp(−σ) would be infinite from −88 on.

ABI. Pointers, then integers, then constants; an output that is not wanted is None. λ/denominator
arrives as the bits of a float32 in an integer, for it changes with the last batch and with a
schedule of λ, and a runtime float would be typed float64 by some callers. The integers are exempt
from specialisation: a new batch size compiles nothing. Offsets are 64-bit per program and 32-bit
inside its tile, so no size overflows. Interior tiles are unmasked, hence 128-bit wide for any
size; only the last tile of a row masks.
"""

from typing import Any

import numpy as np
import triton
import triton.language as tl

from ulfd.kernels.triton_configs import Launch
from ulfd.options import LossOptions

FINISH = {"TERMS": 256, "OUTPUTS": 32}
FINISH_WARPS = 8


@triton.jit
def factor_of(scale_bits, upstream):
    """g: the float32 whose bits are given, times the upstream gradient if there is one."""
    factor = scale_bits.to(tl.float32, bitcast=True)
    if upstream is not None:
        factor = factor * tl.load(upstream).to(tl.float32)
    return factor


@triton.jit
def weights(given, BETA: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr):
    """σ after the clamp, e and b."""
    sigma = given
    if LOW is not None:
        # Comparisons, not minimum and maximum: NaN stays NaN, and so does its gradient.
        sigma = tl.where(given < LOW, LOW, tl.where(given > HIGH, HIGH, given))
    balance = 1.0 if BETA == 0.0 else tl.exp(BETA * sigma)
    return sigma, tl.exp(-0.5 * sigma), balance


@triton.jit
def tile(student, teacher, inverse, gain, by_student, by_teacher, offsets, mask):
    """Reads a tile of features, writes ∂/∂ẑ = gain·r·e and ∂/∂z; returns r²."""
    residual = tl.load(student + offsets, mask).to(tl.float32)
    residual -= tl.load(teacher + offsets, mask).to(tl.float32)
    residual *= inverse
    if by_student is not None:
        tl.store(by_student + offsets, gain * residual * inverse, mask)
    if by_teacher is not None:
        tl.store(by_teacher + offsets, -(gain * residual * inverse), mask)
    squared = residual * residual
    return squared if mask is None else tl.where(mask, squared, 0.0)


@triton.jit
def shared(squared, count, given, sigma, balance, factor, mask, K: tl.constexpr,
           LOW: tl.constexpr, HIGH: tl.constexpr):  # fmt: skip
    """ℓ and ∂/∂σ, summed over `count` elements that share a σ; squared is their Σ r²."""
    loss = balance * (squared + K * sigma * count)
    by_sigma = factor * balance * (K * count - squared)
    if LOW is not None:
        by_sigma = tl.where((given < LOW) | (given > HIGH), 0.0, by_sigma)
    if mask is not None:
        loss = tl.where(mask, loss, 0.0)
        by_sigma = tl.where(mask, by_sigma, 0.0)
    return loss, by_sigma


@triton.jit
def row_tile(student, teacher, log_variance, factor, by_student, by_teacher, by_sigma, row,
             offsets, count, mask, row_mask, SIGMA: tl.constexpr, K: tl.constexpr,
             BETA: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr):  # fmt: skip
    """The loss of a tile, and for SIGMA 2 ∂/∂σ of its rows; see `over_rows`."""
    if SIGMA == 0:
        loss = tile(student, teacher, 1.0, 2.0 * factor, by_student, by_teacher, offsets, mask)
        gradient = loss
    else:
        place = row if SIGMA == 2 else offsets
        valid = row_mask if SIGMA == 2 else mask
        given = tl.load(log_variance + place, valid).to(tl.float32)
        sigma, inverse, balance = weights(given, BETA, LOW, HIGH)
        gain = 2.0 * factor * balance
        squared = tile(student, teacher, inverse, gain, by_student, by_teacher, offsets, mask)
        if SIGMA == 2:
            squared = tl.sum(squared, 1, keep_dims=True)
        loss, gradient = shared(squared, count, given, sigma, balance, factor, valid,
                                K, LOW, HIGH)  # fmt: skip
        if SIGMA == 1 and by_sigma is not None:
            tl.store(by_sigma + offsets, gradient, mask)
    return tl.sum(loss), gradient


@triton.jit(do_not_specialize=["rows", "length", "chunks", "scale_bits"])
def over_rows(student, teacher, log_variance, upstream, by_student, by_teacher, by_sigma, losses,
              rows: tl.int64, length: tl.int64, chunks: tl.int32, scale_bits: tl.int32,
              SIGMA: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
              SINGLE: tl.constexpr, ALIGN: tl.constexpr, K: tl.constexpr,
              BETA: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr):  # fmt: skip
    """Tiles of HEIGHT × WIDTH; SIGMA is 0 without σ, 1 if every element has its own, 2 if a row
    shares one. by_sigma is σ's gradient, or for SIGMA 2 its sums of shape (rows, chunks)."""
    program = tl.program_id(0)
    factor = factor_of(scale_bits, upstream)
    length = length // ALIGN * ALIGN  # changes nothing, but tells the compiler it is a multiple
    chunk = program if SINGLE else program % chunks
    first = (program * 0 if SINGLE else program // chunks).to(tl.int64) * HEIGHT
    left = chunk.to(tl.int64) * WIDTH
    base = left if SINGLE else first * length + left
    line = tl.arange(0, HEIGHT)[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    offsets = base + (column if HEIGHT == 1 else line * length.to(tl.int32) + column)
    row = first + line
    count = tl.minimum(length - left, WIDTH).to(tl.float32) if SIGMA == 2 else 1.0
    if (first + HEIGHT <= rows) & (left + WIDTH <= length):
        loss, gradient = row_tile(student, teacher, log_variance, factor, by_student, by_teacher,
                                  by_sigma, row, offsets, count, None, None, SIGMA,
                                  K, BETA, LOW, HIGH)  # fmt: skip
    else:
        mask = (row < rows) & (left + column < length)
        loss, gradient = row_tile(student, teacher, log_variance, factor, by_student, by_teacher,
                                  by_sigma, row, offsets, count, mask, row < rows, SIGMA,
                                  K, BETA, LOW, HIGH)  # fmt: skip
    if losses is not None:
        tl.store(losses + program, loss)
    if SIGMA == 2 and by_sigma is not None:
        tl.store(by_sigma + row * chunks + chunk, gradient, row < rows)


@triton.jit(do_not_specialize=["length", "chunks", "steps", "scale_bits"])
def over_columns(student, teacher, log_variance, upstream, by_student, by_teacher, by_sigma,
                 losses, length: tl.int64, chunks: tl.int32, steps: tl.int32,
                 scale_bits: tl.int32, KEPT: tl.constexpr, INNER: tl.constexpr,
                 PERIOD: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
                 SINGLE: tl.constexpr, ALIGN: tl.constexpr, STAGES: tl.constexpr,
                 K: tl.constexpr, BETA: tl.constexpr, LOW: tl.constexpr,
                 HIGH: tl.constexpr):  # fmt: skip
    """`steps` tiles of HEIGHT × WIDTH below each other, in rows of PERIOD elements; column c has
    the σ of c mod (KEPT·INNER) / INNER. by_sigma is σ's sums, (outer, chunks, PERIOD)."""
    program = tl.program_id(0)
    factor = factor_of(scale_bits, upstream)
    length = length // ALIGN * ALIGN  # changes nothing, but tells the compiler it is a multiple
    tiles: tl.constexpr = (PERIOD + WIDTH - 1) // WIDTH
    strip = program // tiles
    chunk = strip if SINGLE else strip % chunks
    outer = (program * 0 if SINGLE else strip // chunks).to(tl.int64)
    left = (program % tiles).to(tl.int64) * WIDTH
    line = tl.arange(0, HEIGHT)[:, None]
    column = left + tl.arange(0, WIDTH)[None, :]
    inside = None if PERIOD % WIDTH == 0 else column < PERIOD
    which = column if KEPT == PERIOD else column % (KEPT * INNER) // INNER
    given = tl.load(log_variance + outer * KEPT + which, inside).to(tl.float32)
    sigma, inverse, balance = weights(given, BETA, LOW, HIGH)
    gain = 2.0 * factor * balance
    table = left if SINGLE else outer * length + left
    top = chunk.to(tl.int64) * steps * HEIGHT
    start = top * PERIOD
    offsets = line * PERIOD + tl.arange(0, WIDTH)[None, :]
    whole = (tl.maximum(length - start, 0) // (HEIGHT * PERIOD)).to(tl.int32)
    whole = tl.minimum(whole, steps)
    squared = tl.zeros((HEIGHT, WIDTH), tl.float32)
    for _ in tl.range(0, whole, num_stages=STAGES):
        squared += tile(student, teacher, inverse, gain, by_student, by_teacher,
                        table + start + offsets, inside)  # fmt: skip
        start += HEIGHT * PERIOD
    for _ in tl.range(whole, steps, num_stages=1):
        mask = (start + left + offsets < length) & (column < PERIOD)
        squared += tile(student, teacher, inverse, gain, by_student, by_teacher,
                        table + start + offsets, mask)  # fmt: skip
        start += HEIGHT * PERIOD
    rows = (length - column + PERIOD - 1) // PERIOD - top
    count = tl.minimum(tl.maximum(rows, 0), steps * HEIGHT).to(tl.float32)
    valid = (count > 0) & (column < PERIOD)
    loss, gradient = shared(tl.sum(squared, 0, keep_dims=True), count, given, sigma, balance,
                            factor, valid, K, LOW, HIGH)  # fmt: skip
    if losses is not None:
        tl.store(losses + program, tl.sum(loss))
    if by_sigma is not None:
        sums = by_sigma + (outer * chunks + chunk) * PERIOD + column
        tl.store(sums, gradient, inside)


@triton.jit(do_not_specialize=["programs", "outputs", "repeats", "kept", "scale_bits"])
def finish(losses, sums, loss, by_sigma, programs: tl.int64, outputs: tl.int64,
           repeats: tl.int32, kept: tl.int64, scale_bits: tl.int32, INNER: tl.constexpr,
           TERMS: tl.constexpr, OUTPUTS: tl.constexpr):  # fmt: skip
    """Adds partial sums in a fixed order: the loss in the first program, and in the others σ's
    gradient, whose sums (outer, repeats, kept, inner) leave outputs = outer × kept numbers."""
    program = tl.program_id(0)
    if loss is not None:
        if program == 0:
            lane = tl.arange(0, TERMS * OUTPUTS)
            total = tl.zeros((TERMS * OUTPUTS,), tl.float32)
            for first in range(0, programs, TERMS * OUTPUTS):
                total += tl.load(losses + first + lane, first + lane < programs, 0.0)
            tl.store(loss, tl.sum(total) * factor_of(scale_bits, None))
        program -= 1
    if by_sigma is not None:  # two conditions: this one is settled while compiling  # noqa: SIM102
        if program >= 0:
            output = program.to(tl.int64) * OUTPUTS + tl.arange(0, OUTPUTS)[None, :]
            place = (output // kept * repeats * kept + output % kept) * INNER
            term = tl.arange(0, TERMS)[:, None]
            sigma = tl.zeros((TERMS, OUTPUTS), tl.float32)
            for first in range(0, repeats * INNER, TERMS):
                at_term = first + term
                step = (at_term // INNER).to(tl.int64) * (kept * INNER) + at_term % INNER
                mask = (at_term < repeats * INNER) & (output < outputs)
                sigma += tl.load(sums + place + step, mask, 0.0)
            tl.store(by_sigma + output, tl.sum(sigma, 0, keep_dims=True), output < outputs)


KERNELS = {"over_rows": over_rows, "over_columns": over_columns}


def scale_bits(scale: float) -> int:
    """The bits of `scale` as a float32, in a signed integer."""
    return int(np.float32(scale).view(np.int32))


def constants(launch: Launch, options: LossOptions) -> dict[str, Any]:
    """Every compile-time constant of the launch, by the kernel's parameter names."""
    low, high = options.clamp or (None, None)
    given = {"K": options.prior_weight, "BETA": options.beta, "LOW": low, "HIGH": high}
    return {**launch.constants, **given}


def finish_launch(
    launch: Launch, *, loss: bool, sums: bool
) -> tuple[int, dict[str, int], dict[str, int]]:
    """The grid, the runtime integers and the constants of `finish` after a launch.

    Args:
        loss: whether there are losses to add.
        sums: whether there are sums of σ's gradient to add.
    """
    outer, repeats, kept, inner = launch.sums if sums and launch.sums else (0, 1, 1, 1)
    integers = {"programs": launch.grid, "outputs": outer * kept, "repeats": repeats, "kept": kept}
    grid = loss - (-outer * kept // FINISH["OUTPUTS"])
    return grid, integers, {"INNER": inner, **FINISH}


def run(
    launch: Launch,
    *,
    student: Any,
    teacher: Any,
    log_variance: Any,
    upstream: Any,
    by_student: Any,
    by_teacher: Any,
    by_sigma: Any,
    loss: Any,
    losses: Any,
    sums: Any,
    scale: float,
    options: LossOptions,
) -> None:
    """Launches the kernels on the current device and stream; waits for nothing.

    Args:
        launch: from `triton_configs.launch`.
        student, teacher, log_variance: the inputs' memory, any objects with `data_ptr()` and
            `dtype`; log_variance None without σ. All in the features' memory order.
        upstream: one number on the device, or None for 1.
        by_student, by_teacher, by_sigma: where the gradients go, None for those not wanted.
        loss: one float32, or None.
        losses: `launch.grid` float32, scratch; None without loss.
        sums: prod(launch.sums) float32, scratch; None where by_sigma or launch.sums is.
        scale: λ / denominator.
        options: k, β and the clamp.
    """
    bits = scale_bits(scale)
    direct = by_sigma if sums is None else sums
    KERNELS[launch.kernel][(launch.grid,)](
        student, teacher, log_variance, upstream, by_student, by_teacher, direct, losses,
        **launch.integers, scale_bits=bits, num_warps=launch.warps,
        **constants(launch, options),
    )  # fmt: skip
    if loss is None and sums is None:
        return
    grid, integers, fixed = finish_launch(launch, loss=loss is not None, sums=sums is not None)
    finish[(grid,)](
        losses, sums, loss, by_sigma if sums is not None else None, **integers, scale_bits=bits,
        **fixed, num_warps=FINISH_WARPS,
    )  # fmt: skip
