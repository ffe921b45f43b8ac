"""The measured quality against its definition, on scores and on images."""

import numpy as np
import pytest
import torch
from scipy import stats

from reference_training.corruptions import SEVERITIES, corrupt
from reference_training.data import load
from reference_training.runtime.errors import RunError
from reference_training.uncertainty.meter import load_meter
from reference_training.uncertainty.quality import measure, quality, quality_table

IMAGES = load("digits").test_images[:20]
NAMES = ("contrast", "gaussian_blur")  # seen, unseen


def area(clean, degraded):
    """AUROC from its definition."""
    return np.mean([(d > c) + (d == c) / 2 for c in clean for d in degraded])


def test_of_scores():
    generator = np.random.default_rng(0)
    clean = generator.normal(0, 1, 6)
    degraded = np.stack([generator.normal(s / 3, 1, 6) for s in SEVERITIES])
    found = quality(clean, degraded)
    assert found["auroc"] == pytest.approx([area(clean, row) for row in degraded])
    each = [stats.spearmanr(image, SEVERITIES).statistic for image in degraded.T]
    assert found["spearman"] == pytest.approx(np.mean(each))


def test_of_a_perfect_a_reversed_and_a_constant_score():
    rising = np.tile(np.array([SEVERITIES], float).T, 4)
    assert quality(np.zeros(4), rising) == {"auroc": [1.0] * 5, "spearman": pytest.approx(1)}
    assert quality(np.zeros(4), -rising) == {"auroc": [0.0] * 5, "spearman": pytest.approx(-1)}
    assert quality(np.ones(4), np.ones((5, 4))) == {"auroc": [0.5] * 5, "spearman": 0}


def test_of_a_meter(run):
    meter = load_meter(run("ulfd")[0])
    rows = measure(meter, IMAGES, NAMES)
    assert [row["corruption"] for row in rows] == list(NAMES)
    clean = meter.score(IMAGES)
    for row in rows:
        assert row["scores"].keys() == clean.keys()
        assert row["images"] == 20
        for name in ("theta", "smoothness"):
            sets = (
                corrupt(IMAGES, row["corruption"], severity, seeds=torch.arange(20))
                for severity in SEVERITIES
            )
            expected = [area(clean[name], meter.score(degraded)[name]) for degraded in sets]
            assert row["scores"][name]["auroc"] == pytest.approx(expected)
    # The direction: blurred images are the smoother ones, the more so the stronger the blur.
    blur = rows[1]["scores"]["smoothness"]
    assert blur["auroc"][-1] == 1
    assert blur["spearman"] == pytest.approx(1)


def test_images_that_cannot_be_corrupted(run):
    meter = load_meter(run("ulfd")[0])
    with pytest.raises(RunError, match="fogg"):
        measure(meter, IMAGES, ("fogg",))


def test_the_table_has_the_means():
    def row(name, level):
        return {
            "corruption": name,
            "images": 9,
            "scores": {"theta": {"auroc": [level, level + 0.2], "spearman": -level}},
        }

    rows = [row("fog", 0.1), row("gaussian_noise", 0.3), row("gaussian_blur", 0.7)]
    table = quality_table(rows)
    assert table.rows == (
        ("fog", "0.200 -0.10"),
        ("gaussian noise", "0.400 -0.30"),
        ("gaussian blur", "0.800 -0.70"),
        ("mean, seen", "0.300 -0.20"),
        ("mean, unseen", "0.800 -0.70"),
    )
    assert len(quality_table(rows[:1]).rows) == 2  # no mean of nothing
