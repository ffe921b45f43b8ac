"""For all tests, those in the packages' docstrings too: what is tested is this checkout."""

import gc
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
PACKAGES = ("ulfd", "ulfd_torch", "ulfd_jax", "reference_training")

# The workers of `pytest -n auto` share the cores; before torch is imported, which reads this once.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(share, 1)))


def pytest_collection_finish() -> None:
    """What is imported by now stays: no later collection of garbage need walk over it."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Modules written in C++ complain of what is not collected at the end."""
    gc.unfreeze()


def pytest_configure() -> None:
    """An environment in which another checkout is installed would have that one tested."""
    for package in PACKAGES:
        spec = find_spec(package)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found is None or ROOT not in found.parents:
            raise pytest.UsageError(
                f"{package} is {found or 'not installed'}, not the one of this checkout ({ROOT}); "
                "install this one: pip install --no-deps --editable ."
            )
