"""Hypothesis for all tests: no deadline, for a busy machine is not a bug; fixed examples in CI."""

import os

from hypothesis import settings

settings.register_profile("project", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("project")
