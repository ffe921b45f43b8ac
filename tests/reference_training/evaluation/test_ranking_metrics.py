"""AUROC by its definition, and rank correlation by another implementation."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reference_training.evaluation.ranking_metrics import auroc, rank_correlation

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
