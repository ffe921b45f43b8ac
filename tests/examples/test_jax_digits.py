"""The JAX example trains, at small size, and its corruptions and table are what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optax")

from examples import jax_digits

ROOT = Path(__file__).resolve().parents[2]
SMALL = """
from examples import jax_digits as example
methods = (example.METHODS[0], example.METHODS[3])
results = example.run(0, 60, methods)
assert results[methods[0]]["clean"][0] > 0.4, results  # from 0.1 by chance
print(example.table([results]))
"""


def test_it_trains_and_reports():
    # Compiling is most of it; the flags make that faster and the steps slower.
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    done = subprocess.run(
        [sys.executable, "-c", SMALL],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.strip().splitlines()
    assert lines[0] == "|  | clean | seen (5) | unseen (2) | mCE |"
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| vanilla, clean images only",
        "| + uncertainty (ULFD)",
    ]
    assert lines[2].endswith("| 100.0 |")


@pytest.mark.parametrize("name", [*jax_digits.SEEN, *jax_digits.UNSEEN])
def test_corruptions_get_worse_with_severity(name):
    images, _ = jax_digits.digits()
    assert images.shape == (1797, 1, 16, 16)
    assert images.dtype == np.float32
    damages = []
    for severity in jax_digits.SEVERITIES:
        found = jax_digits.corrupt(name, images, severity, np.random.default_rng(0))
        assert (found.shape, found.dtype) == (images.shape, images.dtype)
        assert found.min() >= 0
        assert found.max() <= 1
        damages.append(float(np.abs(found - images).mean()))
    assert damages[0] > 0
    assert damages == sorted(damages)


def test_the_table_counts_as_it_says():
    names = ("clean", *jax_digits.SEEN, *jax_digits.UNSEEN)

    def seed(error):
        half = {name: [1 - error / 2] * 5 for name in names}
        return {
            jax_digits.VANILLA: {name: [1 - error] * 5 for name in names},
            jax_digits.METHODS[3]: half,
        }

    table = jax_digits.table([seed(0.2), seed(0.4)]).splitlines()
    assert table[2] == (
        "| vanilla, clean images only | 70.0 ± 14.1 | 70.0 ± 14.1 | 70.0 ± 14.1 | 100.0 ± 0.0 |"
    )
    assert table[3].endswith("| 50.0 ± 0.0 |")


def test_the_documentation_shows_the_measured_table():
    found = json.loads((ROOT / "benchmarks/results/jax_digits.json").read_text(encoding="utf-8"))
    table = jax_digits.table(list(found.values()))
    assert table in (ROOT / "ulfd_jax/README.md").read_text(encoding="utf-8")
