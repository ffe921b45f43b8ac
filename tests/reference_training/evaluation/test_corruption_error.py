"""The metrics against the numbers published for ImageNet-C."""

import math

import pytest

from reference_training.corruptions import CORRUPTIONS, SEEN, UNSEEN
from reference_training.evaluation import corruption_error as ce
from reference_training.paper.results import PAPER

# ResNet-50 (torchvision) on ImageNet-C: type → (mean top-1, CE), both in percent.
RESNET50 = {
    "brightness": (68.02, 56.64),
    "contrast": (39.06, 71.43),
    "defocus_blur": (38.75, 74.71),
    "elastic_transform": (45.25, 84.75),
    "fog": (45.83, 66.11),
    "frost": (38.14, 74.84),
    "gaussian_noise": (29.29, 79.77),
    "glass_blur": (26.79, 88.61),
    "impulse_noise": (23.81, 82.58),
}
# ResNet-50 on RobustBench's 5,000 images, top-1 % by severity.
RESNET50_SUBSET = {
    "gaussian_noise": (60.20, 48.78, 31.24, 14.22, 2.88),
    "shot_noise": (58.28, 44.86, 28.56, 10.26, 3.52),
    "impulse_noise": (48.54, 38.62, 29.04, 11.30, 2.44),
    "defocus_blur": (59.14, 51.54, 38.08, 27.52, 18.24),
    "glass_blur": (53.62, 39.74, 17.08, 13.06, 10.34),
    "motion_blur": (63.60, 53.42, 37.54, 21.58, 14.52),
    "zoom_blur": (52.58, 43.02, 35.60, 28.44, 21.94),
    "snow": (54.68, 31.20, 34.94, 23.44, 16.50),
    "frost": (61.06, 43.66, 30.64, 28.64, 22.58),
    "fog": (60.92, 56.00, 46.74, 40.24, 23.60),
    "brightness": (73.60, 72.22, 69.58, 64.96, 58.86),
    "contrast": (64.28, 58.24, 46.60, 20.98, 5.42),
    "elastic_transform": (66.84, 45.14, 54.56, 41.22, 17.02),
    "pixelate": (63.80, 64.34, 45.98, 29.30, 20.88),
    "jpeg_compression": (66.44, 62.34, 60.04, 47.86, 32.54),
}


def constant(value: float) -> dict[str, list[float]]:
    return {name: [value] * 5 for name in CORRUPTIONS}


def test_alexnet_table_has_every_corruption_and_its_published_averages():
    assert tuple(ce.ALEXNET.errors) == CORRUPTIONS
    mean = sum(sum(ce.ALEXNET.errors[name]) for name in SEEN) / 75
    assert mean == pytest.approx(0.788993, abs=5e-7)
    held_out = sum(sum(ce.ALEXNET.errors[name]) for name in UNSEEN) / 20
    assert held_out == pytest.approx(0.752064, abs=5e-7)


def test_alexnet_itself_is_exactly_100():
    errors = dict(ce.ALEXNET.errors)
    assert 100 * ce.normalised_corruption_error(errors, ce.ALEXNET.errors) == 100
    clean = ce.ALEXNET.clean_error
    arguments = (errors, ce.ALEXNET.errors, clean, clean)
    assert set(ce.corruption_errors(*arguments).values()) == {1.0}


@pytest.mark.parametrize("corruption", RESNET50)
def test_resnet50_has_its_published_corruption_errors(corruption):
    top1, published = RESNET50[corruption]
    errors = {corruption: [1 - top1 / 100] * 5}
    got = ce.corruption_errors(errors, ce.ALEXNET.errors, corruptions=[corruption])
    assert 100 * got[corruption] == pytest.approx(published, abs=0.01)


def test_resnet50_on_the_subset_has_its_published_mce_and_mean():
    accuracies = {name: [v / 100 for v in row] for name, row in RESNET50_SUBSET.items()}
    mce = ce.normalised_corruption_error(ce.errors_of(accuracies), ce.ALEXNET.errors)
    assert 100 * mce == pytest.approx(76.4, abs=0.05)
    assert 100 * ce.seen_accuracy(accuracies) == pytest.approx(39.48, abs=0.005)


def test_resnet50_on_the_subset_has_its_published_corruption_errors():
    printed = (77.3, 79.3, 80.2, 74.5, 88.6, 78.7, 79.8, 78.3, 75.8, 66.5, 57.0, 71.4, 85.2, 76.8)
    errors = {name: [1 - v / 100 for v in row] for name, row in RESNET50_SUBSET.items()}
    got = ce.corruption_errors(errors, ce.ALEXNET.errors)
    for name, published in zip(RESNET50_SUBSET, (*printed, 76.1), strict=True):
        assert 100 * got[name] == pytest.approx(published, abs=0.05 + 1e-9)


def test_seen_and_unseen_do_not_mix():
    accuracies = constant(0.5) | {name: [0.1, 0.2, 0.3, 0.4, 0.5] for name in UNSEEN}
    assert ce.seen_accuracy(accuracies) == 0.5
    assert ce.unseen_accuracy(accuracies) == pytest.approx(0.3)
    assert ce.mean_corruption_error(accuracies) == 0.5


def test_normalisation_is_a_mean_of_ratios_and_not_a_ratio_of_means():
    reference = constant(0.5) | {"fog": [0.1] * 5}
    errors = constant(0.25) | {"fog": [0.2] * 5}
    # 14 types at 1/2, fog at 2.
    expected = (14 * 0.5 + 2.0) / 15
    assert ce.normalised_corruption_error(errors, reference) == pytest.approx(expected)


def test_relative_error_subtracts_the_clean_errors():
    got = ce.corruption_errors(constant(0.5), constant(0.7), 0.2, 0.1)
    assert got == pytest.approx(dict.fromkeys(SEEN, 0.3 / 0.6))


def test_a_missing_corruption_is_named():
    accuracies = constant(0.5)
    del accuracies["frost"]
    with pytest.raises(ValueError, match="'frost' is missing"):
        ce.seen_accuracy(accuracies)


def test_a_missing_severity_is_named():
    with pytest.raises(ValueError, match="'fog' has 4 values"):
        ce.seen_accuracy(constant(0.5) | {"fog": [0.5] * 4})


@pytest.mark.parametrize("value", [63.4, -0.1, math.nan])
def test_percentages_and_nonsense_are_refused(value):
    with pytest.raises(ValueError, match="fractions from 0 to 1"):
        ce.seen_accuracy(constant(value))


def test_a_perfect_reference_is_refused():
    reference = constant(0.5) | {"contrast": [0.0] * 5}
    with pytest.raises(ValueError, match="no error on 'contrast'"):
        ce.normalised_corruption_error(constant(0.5), reference)
    with pytest.raises(ValueError, match="loses nothing by"):
        ce.corruption_errors(constant(0.5), constant(0.3), 0.1, 0.3)


def test_the_papers_numbers_agree_with_each_other():
    paper = PAPER
    unseen = {(r["method"], r["architecture"]): r["unseen"] for r in paper["table_1"]["rows"]}
    for row in paper["table_2"]["rows"]:
        mean = sum(row[name] for name in UNSEEN) / 4
        assert mean == pytest.approx(unseen[row["method"], row["architecture"]], abs=0.0051)
    assert paper["table_6a"]["rows"][2]["top1"] == paper["table_1"]["rows"][6]["seen"]
    assert paper["table_5"]["rows"][2]["mce"] == paper["table_6b"]["rows"][1]["mce"]
