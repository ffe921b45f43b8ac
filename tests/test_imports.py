"""Importing one package loads no framework that it does not need; a missing one is explained."""

import subprocess
import sys

import pytest

from ulfd.extras import require

LOADED = "import sys, {package}; print([m for m in {forbidden} if m in sys.modules])"


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("ulfd", ("torch", "jax", "triton")),
        ("ulfd.env", ("torch", "jax")),
        ("ulfd_torch", ("jax",)),
        ("ulfd_jax", ("torch", "triton", "jax_triton", "optax", "safetensors")),
    ],
)
def test_lean_imports(package, forbidden):
    code = LOADED.format(package=package, forbidden=forbidden)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_extra_prints_the_pip_line():
    with pytest.raises(ImportError, match=r"pip install 'ulfd\[jax\]'"):
        require("no_such_framework", extra="jax")


@pytest.mark.parametrize("adapter", ["jax", "torch"])
def test_a_missing_framework_says_what_to_install(adapter):
    hidden = "import importlib.util as u; find = u.find_spec; "
    hidden += (
        f"u.find_spec = lambda name, *rest: None if name == {adapter!r} else find(name, *rest)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{hidden}; import ulfd_{adapter}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"pip install 'ulfd[{adapter}]'" in done.stderr


def test_the_report_names_versions_and_kernels():
    done = subprocess.run(
        [sys.executable, "-m", "ulfd.env"], capture_output=True, text=True, check=True
    )
    lines = ("ulfd: ", "torch: ", "jax: ", "device cpu", "device jax ", "kernel triton in jax: ")
    for line in (*lines, "kernel composite: available"):
        assert line in done.stdout
