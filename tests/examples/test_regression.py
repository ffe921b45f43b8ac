"""The regression example trains, measures what it says, and is on its page."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from examples import regression

PAGE = Path(__file__).resolve().parents[2] / "docs/regression.md"


@pytest.fixture(scope="module")
def results():
    return {name: [regression.fit(name, 0, 200)] for name in regression.DISTRIBUTIONS}


def test_every_loss_learns_and_is_calibrated(results):
    spread = 77.0  # of the answers: what predicting their mean gives
    for name, (result,) in results.items():
        assert result.rmse < 0.85 * spread, name
        # A Gaussian of the data's own mean and spread has ½·log(2πe) + log 77 = 5.76 nats.
        assert result.nll < 0.5 * math.log(2 * math.pi * math.e) + math.log(spread), name
        assert (np.diff(result.coverage) >= 0).all(), name
        # 142 patients: a share of 0.9 has a standard error of 0.025.
        assert abs(result.coverage[-2] - 0.9) < 0.13, name


def test_each_distribution_is_the_likelihood_of_its_loss():
    d, sigma = torch.tensor([0.3, -2.0, 5.0]), torch.tensor([0.5, -1.0, 2.0])
    scale = (sigma / 2).exp().numpy()
    for name in ("gaussian_nll", "student_t", "laplace"):
        loss = regression.ULFDLoss.named(name, reduction="none")(d, torch.zeros(3), sigma)
        exact = np.log(scale) - regression.DISTRIBUTIONS[name].logpdf(d.numpy() / scale)
        np.testing.assert_allclose(loss - loss[0], exact - exact[0], rtol=1e-5, err_msg=name)


def test_the_page_has_the_table_and_the_program(results, tmp_path):
    page = PAGE.read_text(encoding="utf-8")
    header, rule, *rows = regression.table({n: r * 2 for n, r in results.items()}).splitlines()
    assert f"{header}\n{rule}\n| {rows[0].split(' | ')[0][2:]} | " in page
    assert "../examples/regression.py" in page
    regression.draw(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
