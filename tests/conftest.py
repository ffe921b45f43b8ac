"""Tests draw the same random numbers in any order, and hypothesis has no deadline."""

import os
import random
import sys

import numpy as np
import pytest
from hypothesis import settings

# A busy machine is not a bug; the examples are fixed in CI.
settings.register_profile("project", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("project")


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """The global generators begin anew, or a result would depend on the worker's tests before.

    Fixtures of a module are made earlier, and seed what they draw themselves.
    """
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
