"""The rule for "better": pairing, the standard error, the marks, and the words of the verdict."""

from math import sqrt

import pytest

from reference_training.reporting.statistics import Spread, cell, gain, paired, verdict


def by_seed(*values: float) -> dict[str, float]:
    return {str(seed): value for seed, value in enumerate(values)}


def test_spread_is_the_sample_deviation_and_absent_for_one_seed():
    assert Spread.of([1.0, 3.0]) == Spread(2.0, pytest.approx(sqrt(2)), 2)
    assert Spread.of([4.0]) == Spread(4.0, None, 1)
    with pytest.raises(ValueError, match="at least one seed"):
        Spread.of([])


def test_only_seeds_of_both_are_paired_and_rounding_is_no_difference():
    assert paired({"0": 70.0, "2": 71.0, "3": 0.1 + 0.2}, {"2": 69.5, "3": 0.3, "4": 9.0}) == {
        "2": 1.5,
        "3": 0.0,
    }


def test_the_error_is_the_deviation_over_the_root_of_the_seeds():
    found = Spread.of([1.0, 2.0, 6.0])
    assert (found.mean, found.seeds) == (3.0, 3)
    assert found.error == pytest.approx(sqrt((4 + 1 + 9) / 2) / sqrt(3))


@pytest.mark.parametrize(
    ("points", "text"),
    [
        ((1.0, 1.1, 0.9), "+1.00 ± 0.06 ▲"),
        ((-1.0, -1.1, -0.9), "−1.00 ± 0.06 ▼"),
        ((0.5, 1.5, 0.1), "+0.70 ± 0.42"),
        ((0.5, 0.5), "+0.50 ± 0.00 ▲"),
        ((0.0, 0.0), "0.00 ± 0.00"),
        ((-0.002, 0.0), "0.00 ± 0.00"),
        ((9.0,), "+9.00"),
        ((), "–"),
    ],
)
def test_an_effect_is_more_than_two_standard_errors(points, text):
    ours = {seed: 50 + point for seed, point in by_seed(*points).items()}
    assert gain(ours, by_seed(*[50.0] * 9)) == text
    errors = {seed: -value for seed, value in ours.items()}
    fall = gain(errors, by_seed(*[-50.0] * 9), lower_is_better=True)
    assert fall[-1:] == text[-1:]  # the same mark where a fall is better
    assert points == () or float(text[1:5]) == 0 or fall[0] == {"+": "−", "−": "+"}[text[0]]


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (
            (1.5, 2.5),
            "On this data A beat B: +2.00 ± 0.50 % (mean of 2 paired seeds ± standard error), "
            "beyond 2 standard errors. 2 seeds give an indication, not a test.",
        ),
        ((1.0, 2.0, 2.0, 2.0, 1.0), "beyond 2 standard errors."),
        ((-1.0, 2.0), "did not beat B: +0.50 ± 1.50 % (mean of 2 paired seeds"),
        ((-1.0, 2.0), "within 2 standard errors"),
        ((-9.0, -8.0), "did not beat B: −8.50 ± 0.50 %"),
        ((-9.0, -8.0), "worse beyond 2 standard errors"),
        ((0.0, 0.0), "did not beat B: 0.00 ± 0.00 %"),
        ((0.0,), "did not beat B: 0.00 %, but one seed proves nothing"),
        ((2.0,), "was ahead of B: +2.00 %, but one seed proves nothing"),
        ((), "No verdict on A against B: no seed"),
    ],
)
def test_the_verdict_says_what_the_numbers_say(points, said):
    ours = {seed: 50 + point for seed, point in by_seed(*points).items()}
    text = verdict(ours, by_seed(*[50.0] * 9), "A", "B", "%")
    assert said in text
    assert (" beat B" in text) == (len(points) > 1 and min(points) > 0) or "did not beat" in text
    assert ("an indication" in text) == (1 < len(points) < 5)


def test_cells():
    assert cell(by_seed(60.0, 62.0)) == "61.0 ± 1.4"
    assert cell(by_seed(-0.5), signed=True) == "−0.50"
    assert cell({}) == "–"
