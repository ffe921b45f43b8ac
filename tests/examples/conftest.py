"""What the tests of the examples share."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from examples import pairs
from reference_training.data import load


@cache
def _dataset():
    return replace(
        load("fashion-mnist-subset"),
        test_images=torch.zeros(20, 3, 32, 32, dtype=torch.uint8),
        test_labels=torch.zeros(20, dtype=torch.int64),
    )


@pytest.fixture
def few_test_images(monkeypatch):
    """Seeds torch, and evaluates on two images."""
    torch.manual_seed(0)
    monkeypatch.setattr(pairs, "load", lambda name: _dataset())
