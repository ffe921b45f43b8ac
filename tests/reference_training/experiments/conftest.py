"""A full-scale run made small: photographs of eight classes, and the arguments to train on them."""

import pytest

from scripts.make_photograph_crops import write_folder
from tests.reference_training.experiments.material import SMALL


@pytest.fixture(scope="session")
def crops(tmp_path_factory):
    root = tmp_path_factory.mktemp("crops")
    write_folder(root, each=8, broken=3)
    return root


@pytest.fixture(scope="session")
def small(crops):
    return [*SMALL, "--data-root", str(crops)]
