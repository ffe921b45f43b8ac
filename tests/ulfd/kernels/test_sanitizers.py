"""The native kernel under the sanitizers: addresses, undefined behaviour, races between threads."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[3] / "ulfd" / "kernels" / "cpu"
CHECK = Path(__file__).with_name("native_check.cpp")
COMPILER = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


@pytest.mark.skipif(
    shutil.which("cmake") is None or COMPILER is None, reason="needs cmake and a C++ compiler"
)
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_clean(sanitizers, tmp_path):
    flags = f"-fsanitize={sanitizers} -fno-sanitize-recover=all -g1"
    commands = (
        ["cmake", "-S", SOURCES, "-B", tmp_path, f"-DCMAKE_CXX_COMPILER={COMPILER}",
         f"-DCMAKE_CXX_FLAGS={flags}", f"-DULFD_CHECK={CHECK}",
         "-DCMAKE_DISABLE_FIND_PACKAGE_Python=ON"],
        ["cmake", "--build", tmp_path, "--target", "ulfd_check", "--parallel", "2"],
        [tmp_path / "ulfd_check"],
    )  # fmt: skip
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
