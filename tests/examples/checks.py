"""What is asserted of several examples."""

import re
from pathlib import Path

import pytest
import torch
import tyro

from examples import pairs

ROOT = Path(__file__).resolve().parents[2]


def assert_trained(*modules):
    """The last step moved every weight."""
    for module in modules:
        for name, weight in module.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name
            assert weight.grad.abs().max() > 0, name


def assert_program(program):
    """It has a command line, names it, and is on the page."""
    with pytest.raises(SystemExit) as stopped:
        tyro.cli(program.main, args=["--help"])
    assert stopped.value.code == 0
    found = re.findall(r"python -m (examples\.\w+)", program.__doc__)
    assert found == [program.__name__]
    page = (ROOT / "docs/examples.md").read_text(encoding="utf-8")
    assert f"../{program.__name__.replace('.', '/')}.py" in page


def eq_9(z_hat, z, sigma):
    """Written out; where no clamp acts."""
    return ((-sigma).exp() * (z - z_hat) ** 2 + 2 * sigma).mean()


def batch(dtype=torch.float64):
    """Four pairs; in float64, or another dtype."""
    (one,) = pairs.pairs(1, 4)
    return [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in one]
