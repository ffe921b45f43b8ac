"""Compiles the Triton kernels for every GPU target, with no GPU.

`python -m ulfd.kernels.ahead_of_time [--json FILE]` prints for each target, dtype and shape of σ:
registers, spills, stack, shared memory, float64 instructions, the widths of the global loads and
stores, and the bytes moved per element, counted from the interior's machine code
(`machine_code`). From the bytes and the datasheets' bandwidth follows the predicted time, a lower
bound that no measurement stands behind.
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ulfd.broadcasting import plan
from ulfd.kernels import machine_code, triton_configs, triton_fused
from ulfd.options import DEFAULT, LossOptions

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "sm_120": GPUTarget("cuda", 120, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# Memory bandwidth in TB/s, from the makers' datasheets: NVIDIA A100 80GB SXM (2021), H100 SXM
# (2023), H200 SXM (2024), HGX B200 (2025), AMD Instinct MI300X (2023).
BANDWIDTHS = {
    "sm_80": {"A100": 2.039},
    "sm_90": {"H100": 3.35, "H200": 4.8},
    "sm_100": {"B200": 8.0},
    "gfx942": {"MI300X": 5.3},
}
SHAPE = (256, 2048, 7, 7)
SIGMAS = {
    "full": SHAPE,
    "spatial": (256, 1, 7, 7),
    "sample": (256, 1, 1, 1),
    "channel": (1, 2048, 1, 1),
}
ITEMSIZES = {"fp32": 4, "bf16": 2, "fp16": 2}
NHWC = (0, 2, 3, 1)


def source(
    kernel: Any, pointers: Mapping[str, str | None], constants: Mapping[str, Any]
) -> ASTSource:
    """What Triton compiles for pointers on 16-byte borders; an integer is never specialised.

    Args:
        kernel: a function of `triton_fused`.
        pointers: the dtype, as "fp32", of every pointer by name; None for those not given.
        constants: the compile-time constants by name.
    """
    signature: dict[str, str] = {}
    values: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for index, parameter in enumerate(kernel.params):
        name = parameter.name
        if pointers.get(name) is not None:
            signature[name] = f"*{pointers[name]}"
            attributes[(index,)] = [["tt.divisibility", 16]]
        elif name in pointers or name in constants:
            signature[name] = "constexpr"
            values[(index,)] = constants.get(name)
        else:
            signature[name] = parameter.annotation_type
    return ASTSource(kernel, signature, values, attributes)


def one_pass(
    launch: triton_configs.Launch, dtype: str, options: LossOptions = DEFAULT
) -> ASTSource:
    """The kernel that writes the loss and the gradients of student and σ under an upstream."""
    pointers: dict[str, str | None] = dict.fromkeys(("student", "teacher", "log_variance"), dtype)
    pointers |= {"upstream": "fp32", "by_student": dtype, "by_teacher": None, "losses": "fp32"}
    pointers["by_sigma"] = dtype if launch.sums is None else "fp32"
    constants = triton_fused.constants(launch, options)
    return source(triton_fused.KERNELS[launch.kernel], pointers, constants)


@dataclass
class Row:
    """One compiled kernel. Bytes are per element of the features, in the interior."""

    target: str
    dtype: str
    sigma: str
    layout: str
    kernel: str
    registers: int
    spills: int
    stack: int
    shared: int
    float64: int
    loads: dict[str, int]  # instructions of one thread and tile, by width in bits
    stores: dict[str, int]
    bytes_read: float
    bytes_written: float
    bytes_total: int  # of the whole problem, with σ and the partial sums
    predicted_microseconds: dict[str, float]


def _tool(name: str) -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _read(kernel: Any) -> tuple[str, dict[str, int]]:
    """The assembly; and registers, spills and bytes of stack, as the assembler reports them."""
    if "amdgcn" in kernel.asm:
        text = kernel.asm["amdgcn"]

        def number(key: str) -> int:
            found = re.search(rf"\.{key}:\s+(\d+)", text)
            assert found, key
            return int(found[1])

        return text, {
            "registers": number("vgpr_count"),
            "spills": number("vgpr_spill_count") + number("sgpr_spill_count"),
            "stack": number("private_segment_fixed_size"),
        }
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        sass, usage = (
            subprocess.run(
                [_tool("cuobjdump"), option, file.name], capture_output=True, text=True, check=True
            ).stdout
            for option in ("-sass", "-res-usage")
        )
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return sass, {
        "registers": found["REG"],
        "spills": found["LOCAL"] + len(re.findall(r"\b(?:LDL|STL)\b", sass)),
        "stack": found["STACK"],
    }


def compiled(target: str, dtype: str, sigma: str, layout: str) -> Row:
    """Compiles the one-pass kernel for SHAPE and reads what came out."""
    itemsize, size = ITEMSIZES[dtype], prod(SHAPE)
    runs = plan(SHAPE, SIGMAS[sigma], NHWC if layout == "NHWC" else None)
    config = triton_configs.config(target, itemsize)
    launch = triton_configs.launch(size, runs, itemsize, config)
    kernel = triton.compile(
        one_pass(launch, dtype), target=TARGETS[target], options={"num_warps": launch.warps}
    )
    assembly, resources = _read(kernel)
    counts = machine_code.interior(assembly)
    # Whole words of the features; what is narrower is one σ, loss or upstream for many of them.
    wide = max(width for _, width in counts)
    tile = launch.constants["HEIGHT"] * launch.constants["WIDTH"]
    threads = TARGETS[target].warp_size * launch.warps
    moved = {kind: counts[kind, wide] * wide * threads / tile for kind in ("load", "store")}
    full = sigma == "full"
    total = size * itemsize * (5 if full else 3)
    total += 0 if full else 2 * prod(SIGMAS[sigma]) * itemsize
    total += 0 if launch.sums is None else 2 * 4 * prod(launch.sums)
    return Row(
        target=target,
        dtype=dtype,
        sigma=sigma,
        layout=layout,
        kernel=launch.kernel,
        **resources,
        shared=kernel.metadata.shared,
        float64=len(
            re.findall(r"\.f64|_f64|\bD(?:FMA|ADD|MUL)\b", kernel.asm.get("ptx", "") + assembly)
        ),
        loads={str(8 * w): n for (kind, w), n in sorted(counts.items()) if kind == "load"},
        stores={str(8 * w): n for (kind, w), n in sorted(counts.items()) if kind == "store"},
        bytes_read=moved["load"],
        bytes_written=moved["store"],
        bytes_total=total,
        predicted_microseconds={
            gpu: round(total / rate / 1e6, 1) for gpu, rate in BANDWIDTHS.get(target, {}).items()
        },
    )


def rows() -> Iterator[Row]:
    """The whole table: contiguous features, and channels-last where the loop differs."""
    for target in TARGETS:
        for dtype in ("fp32", "bf16"):
            for sigma in SIGMAS:
                yield compiled(target, dtype, sigma, "NCHW")
            for sigma in ("spatial", "channel"):
                yield compiled(target, dtype, sigma, "NHWC")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table there")
    arguments = parser.parse_args()
    print(
        f"One pass over {SHAPE}: loss, and gradients of student and σ. Triton {triton.__version__}."
    )
    print("target  dtype σ       memory regs spill stack f64 shared  read+written   loads/stores by"
          " width          predicted µs")  # fmt: skip
    table = []
    for row in rows():
        table.append(asdict(row))
        widths = " ".join(
            "/".join(f"{count}×{width}" for width, count in kind.items())
            for kind in (row.loads, row.stores)
        )
        print(
            f"{row.target:8}{row.dtype:6}{row.sigma:8}{row.layout:6}{row.registers:5}{row.spills:6}"
            f"{row.stack:6}{row.float64:4}{row.shared:7}  {row.bytes_read:g} + "
            f"{row.bytes_written:g} B  {widths:32}"
            + " ".join(f"{gpu} {time}" for gpu, time in row.predicted_microseconds.items()),
            flush=True,
        )
    if arguments.json:
        report = {"triton": triton.__version__, "shape": SHAPE, "rows": table}
        arguments.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
