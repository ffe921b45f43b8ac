"""Importing one package loads no framework that it does not need; a missing one is explained."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from ulfd.extras import require

LOADED = "import sys, {package}; print([m for m in {forbidden} if m in sys.modules])"


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("ulfd", ("torch", "jax", "triton")),
        ("ulfd.env", ("torch", "jax")),
        ("ulfd_torch", ("jax",)),
    ],
)
def test_lean_imports(package, forbidden):
    code = LOADED.format(package=package, forbidden=forbidden)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_extra_prints_the_pip_line():
    with pytest.raises(ImportError, match=r"pip install 'ulfd\[jax\]'"):
        require("no_such_framework", extra="jax")


@pytest.mark.skipif(find_spec("jax") is not None, reason="JAX is installed")
def test_the_jax_adapter_says_what_to_install():
    done = subprocess.run(
        [sys.executable, "-c", "import ulfd_jax"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pip install 'ulfd[jax]'" in done.stderr


def test_the_report_names_versions_and_kernels():
    done = subprocess.run(
        [sys.executable, "-m", "ulfd.env"], capture_output=True, text=True, check=True
    )
    for line in ("ulfd: ", "torch: ", "device cpu", "kernel composite: available"):
        assert line in done.stdout
