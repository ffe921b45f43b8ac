"""Tests refuse to run on the packages of another checkout."""

import subprocess
import sys
from pathlib import Path
from shutil import copy

import ulfd


def test_another_checkout_is_refused(tmp_path):
    copy(Path(__file__).resolve().parents[1] / "conftest.py", tmp_path)
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    command = [sys.executable, "-P", "-m", "pytest", "-q", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stdout
    assert f"ulfd is {Path(ulfd.__file__).resolve()}, not the one of this checkout" in done.stderr
    assert "pip install --no-deps --editable ." in done.stderr
