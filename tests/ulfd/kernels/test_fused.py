"""Runs the tests that the fused kernels share, for each kernel in a process of its own.

Triton decides when a kernel is defined whether it is interpreted or compiled, so that one process
cannot do both; the ahead-of-time tests in this folder need the compiler.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[3]
INTERPRETED = {"ULFD_TEST_KERNEL": "triton", "TRITON_INTERPRET": "1"}
NATIVE = {"ULFD_TEST_KERNEL": "native"}


@pytest.mark.parametrize(
    ("names", "environment"),
    [
        pytest.param(names, environment, id=f"{'-'.join(names)}-{environment['ULFD_TEST_KERNEL']}")
        for names, environment in (
            (("numerics", "operators"), INTERPRETED),
            (("interpreted_distributed",), INTERPRETED),
            (("numerics", "operators"), NATIVE),
        )
    ],
)
def test_fused(names: tuple[str, ...], environment: dict[str, str]) -> None:
    if environment is INTERPRETED:
        pytest.importorskip("triton", reason="Triton is needed: pip install 'ulfd[triton]'")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *(f"tests/ulfd/kernels/{name}.py" for name in names)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
