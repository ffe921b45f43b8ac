"""How far every implementation is from float64: `python -m benchmarks.parity`.

Loss and gradients of the same inputs, exact in each dtype, by NumPy, torch and JAX, each with its
implementations, against the closed form in float64. The difference is given in units in the last
place of the result's dtype, at the size of the largest term of its sum: k and exp(−σ)·d² nearly
cancel in some gradients by σ, and what is left is no measure of the arithmetic.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.problems import PARITY_SHAPE, PARITY_UPSTREAM, SIGMAS, sigma_shape
from tests.conformance.backends import Backend, backends
from tests.oracle import EPS, TINY, exact, magnitudes, make_case
from ulfd.env import versions


def units(actual: Any, expected: Any, magnitude: Any, dtype: str) -> float:
    """The largest |actual − expected| in units in the last place of `dtype` at `magnitude`."""
    size = np.maximum(np.asarray(magnitude), np.finfo(np.float64).tiny)
    unit = np.maximum(2.0 ** np.floor(np.log2(size)) * EPS[dtype], TINY[dtype])
    return float(np.max(np.abs(np.asarray(actual, np.float64) - expected) / unit))


def measure(backend: Backend) -> dict[str, Any]:
    """The row of one implementation and dtype: the largest over the shapes of σ."""
    worst = dict.fromkeys(("loss", "student", "teacher", "log_variance"), 0.0)
    for sigma in SIGMAS:
        case = make_case(PARITY_SHAPE, sigma_shape(PARITY_SHAPE, sigma), backend.rounded)
        loss, gradients = backend.run(case, PARITY_UPSTREAM)
        value, oracle = exact(case, PARITY_UPSTREAM)
        size, magnitude = magnitudes(case, PARITY_UPSTREAM)
        found = {"loss": units(loss, value, size, backend.computed)}
        for name in oracle._fields:
            given = (getattr(x, name) for x in (gradients, oracle, magnitude))
            found[name] = units(*given, backend.dtype)
        worst = {name: max(worst[name], found[name]) for name in worst}
    return {"implementation": backend.name, "dtype": backend.dtype, **worst}


def main() -> None:
    """Prints a line for each implementation and writes the data."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    default = Path(__file__).parent / "results" / "parity.json"
    parser.add_argument("--out", type=Path, default=default, help="where the data goes")
    out = parser.parse_args().out
    rows = []
    for backend in backends(whole=True):
        rows.append(measure(backend))
        print(rows[-1], flush=True)
    report = {"versions": versions(), "shape": PARITY_SHAPE, "sigmas": SIGMAS, "rows": rows}
    out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
