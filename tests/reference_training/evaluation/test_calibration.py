"""What is said of a UEM, for features whose variance is known; and how well scores order images."""

import math
from math import exp, log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reference_training.evaluation.calibration import Features, auroc, calibration, rank_correlation

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


# Whole numbers, so that there are ties.
SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)


@given(SCORES, SCORES)
def test_auroc_is_the_chance_of_the_right_order(clean, degraded):
    wins = [(d > c) + (d == c) / 2 for c in clean for d in degraded]
    expected = sum(wins) / len(wins)
    assert auroc(clean, degraded) == pytest.approx(expected, abs=1e-12)
    assert auroc([-c for c in clean], [-d for d in degraded]) == pytest.approx(1 - expected)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30))
def test_rank_correlation_as_scipy_has_it(pairs):
    first, second = zip(*pairs, strict=True)
    found = rank_correlation(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert math.isnan(found)
    else:
        # Bit for bit: twice the ranks are whole numbers, so the sums are exact.
        assert found == stats.spearmanr(first, second).statistic
