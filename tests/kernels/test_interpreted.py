"""Runs the interpreted tests in a process of their own.

Triton decides when a kernel is defined whether it is interpreted or compiled, so that one process
cannot do both; the ahead-of-time tests in this folder need the compiler.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="Triton is needed: pip install 'ulfd[triton]'")

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "name", ["interpreted_numerics", "interpreted_torch", "interpreted_distributed"]
)
def test_interpreted(name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, f"tests/kernels/{name}.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
