"""What is said of a UEM, for features whose variance is known."""

from math import exp, log

import pytest
import torch

from reference_training.evaluation.calibration import Features, calibration

GENERATOR = torch.Generator().manual_seed(0)
CLEAN, MOVED = torch.randn(2, 6, 4, 3, 3, generator=GENERATOR)
SQUARE = (CLEAN - MOVED).double().square()


def said(log_variance: torch.Tensor) -> dict[str, float]:
    nothing = torch.full_like(log_variance, -9.0)
    return calibration(Features(MOVED, MOVED, log_variance), Features(CLEAN, CLEAN, nothing))


@pytest.mark.parametrize("k", [1.0, 2.0])
def test_the_variance_at_the_losss_minimum(k):
    found = said((SQUARE / k).log())
    assert found["weighted_square"] == pytest.approx(k)
    assert found["variance"] == pytest.approx(SQUARE.mean().item() / k)
    assert found["squared_difference"] == pytest.approx(SQUARE.mean().item())
    assert found["image_rank_correlation"] == pytest.approx(1)
    assert found["element_rank_correlation"] == pytest.approx(1)
    assert found["auroc"] == 1


def test_the_opposite_order_has_the_opposite_sign():
    found = said(-SQUARE.log())
    assert found["element_rank_correlation"] == pytest.approx(-1)


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 1, 3, 3), (6, 1, 1, 1)])
def test_one_number_for_all_has_no_order(shape):
    found = said(torch.full(shape, log(4.0)))
    assert "image_rank_correlation" not in found
    assert "element_rank_correlation" not in found
    assert found["uncertainty"] == pytest.approx(exp(log(4.0) / 2))
    assert found["log_variance_min"] == found["log_variance_mean"] == pytest.approx(log(4.0))
    assert found["weighted_square"] == pytest.approx(SQUARE.mean().item() / 4)
