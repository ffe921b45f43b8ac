"""The machine code of every target: ideal bytes, wide words, no spills, no float64."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is needed: pip install 'ulfd[triton]'")

import triton

from ulfd.kernels import ahead_of_time, machine_code
from ulfd.options import loss_options

PROBLEMS = [
    *((sigma, "NCHW") for sigma in ahead_of_time.SIGMAS),
    ("spatial", "NHWC"),
    ("channel", "NHWC"),
]
IDEAL_SINCE = {"sm_120": (3, 4), "gfx942": (3, 7)}
"""The first Triton whose code is ideal: 3.3 spills two registers for sm_120; for gfx942 3.3 and
3.4 lack a linker, and 3.5 and 3.6 use 32-bit words for full σ."""


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("target", ahead_of_time.TARGETS)
def test_every_target_moves_the_ideal_bytes(target: str, dtype: str) -> None:
    found = tuple(map(int, triton.__version__.split(".")[:2]))
    if found < IDEAL_SINCE.get(target, found):
        pytest.skip(f"Triton {triton.__version__} is too old for ideal code on {target}")
    word = ahead_of_time.ITEMSIZES[dtype]
    for sigma, layout in PROBLEMS:
        row = ahead_of_time.compiled(target, dtype, sigma, layout)
        reads, writes = (3, 2) if sigma == "full" else (2, 1)
        where = str(row)
        assert row.bytes_read == reads * word, where
        assert row.bytes_written == writes * word, where
        assert "128" in row.loads, where
        assert "128" in row.stores, where
        assert (row.spills, row.stack, row.float64) == (0, 0, 0), where
        assert row.registers <= 184, where  # at least 11 warps a multiprocessor
        assert row.shared <= 66000, where
        # σ, its gradient and the partial sums cost little beside the features. On NCHW memory a
        # channel's gradient is summed from 7 × 7 columns and a batch in few pieces.
        features = (reads + writes) * word * 256 * 2048 * 49
        assert row.bytes_total <= 1.15 * features, where


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({"beta": 0.5}, ""), ({"clamp": (-10.0, 10.0)}, ""), ({"prior_weight": 1.0}, "")],
)
def test_options_bring_no_float64_and_no_spills(options: Any, wanted: str) -> None:
    from ulfd.broadcasting import plan
    from ulfd.kernels import triton_configs

    runs = plan(ahead_of_time.SHAPE, ahead_of_time.SHAPE)
    launch = triton_configs.launch(25690112, runs, 4, triton_configs.config("sm_90", 4))
    kernel = triton.compile(
        ahead_of_time.one_pass(launch, "fp32", loss_options(**options)),
        target=ahead_of_time.TARGETS["sm_90"],
        options={"num_warps": launch.warps},
    )
    assert ".f64" not in kernel.asm["ptx"]
    _, resources = ahead_of_time._read(kernel)
    assert resources["spills"] == resources["stack"] == 0


SASS = """
        /*0000*/                   LDG.E R8, desc[UR6][R8.64] ;    /* 0x0 */
        /*0010*/              @!P0 BRA 0x0070 ;
        /*0020*/                   LDG.E.128 R4, desc[UR6][R2.64] ;
        /*0030*/              @!P1 BRA 0x0050 ;
        /*0040*/                   STG.E.128 desc[UR6][R2.64], R4 ;
        /*0050*/               @P2 BRA 0x0020 ;
        /*0060*/                   EXIT ;
        /*0070*/               @P0 LDG.E.U16 R4, desc[UR6][R2.64] ;
        /*0080*/               @P0 STG.E.64 desc[UR6][R2.64], R4 ;
        /*0090*/                   EXIT ;
        /*00a0*/                   BRA 0x00a0 ;
"""


def test_the_reader_of_machine_code_finds_the_loop() -> None:
    assert machine_code.interior(SASS) == {("load", 16): 1, ("store", 16): 1}


def test_the_reader_of_machine_code_finds_the_cheapest_way_without_a_loop() -> None:
    straight = SASS.replace("@P2 BRA 0x0020", "@P2 NOP")
    assert machine_code.interior(straight) == {
        ("load", 4): 1,
        ("load", 2): 1,
        ("store", 8): 1,
    }


def test_the_command_writes_the_table(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    row = ahead_of_time.compiled("sm_90", "fp32", "full", "NCHW")
    monkeypatch.setattr(ahead_of_time, "rows", lambda: iter([row]))
    monkeypatch.setattr(sys, "argv", ["ahead_of_time", "--json", str(tmp_path / "table.json")])
    ahead_of_time.main()
    assert "12 + 8 B" in capsys.readouterr().out
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["rows"][0]["predicted_microseconds"]["H100"] == pytest.approx(153.4)


def test_importing_the_core_loads_no_triton() -> None:
    code = "import sys, ulfd, ulfd_torch; sys.exit('triton.language' in sys.modules)"
    bare = "import sys, ulfd; sys.exit('triton' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", bare], check=False).returncode == 0
    fused = code.replace("'triton.language'", "'ulfd.kernels.triton_fused'")
    assert subprocess.run([sys.executable, "-c", fused], check=False).returncode == 0
