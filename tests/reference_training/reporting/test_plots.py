"""The figures of a report: which methods they show, and that they keep their looks."""

import pytest

from reference_training.reporting import plots
from tests.reference_training.fabricated import full, metrics


def many():
    """Twelve methods; among those that the paper has not, the later the better."""
    names = ["m0", "m1", "ulfd", "m2", "m3", "m4", "m5", "vanilla", "m6", "m7", "m8"]
    return metrics(**{name: (0.3 + index / 50,) for index, name in enumerate(names)})


@pytest.fixture
def drawn(monkeypatch):
    """{path: (caption, {panel: its curves})} of what `plots` draws."""
    found = {}
    monkeypatch.setattr(
        plots, "picture", lambda path, caption, draw: found.update({path: (caption, draw.args[0])})
    )
    return found


def test_of_many_methods_eight_are_shown_and_the_others_named(drawn):
    plots.plots(many())
    caption, panels = drawn["figures/accuracy.png"]
    best = {f"m{number}" for number in range(3, 9)}
    for curves in panels.values():
        labels = {curve.label for curve in curves}
        assert labels == best | {"Vanilla (clean only)", "+ uncertainty (ULFD)"}
        assert len({curve.style for curve in curves}) == 8
    assert "show 8 of 11 methods" in caption
    assert "Left out, and in the tables: m0; m1; m2." in caption
    plots.plots(full())
    assert "Left out" not in drawn["figures/accuracy.png"][0]


def test_curves_are_the_clean_images_then_the_severities(drawn):
    plots.plots(full())
    (vanilla, *_), _ = drawn["figures/accuracy.png"][1].values()
    assert vanilla.values == pytest.approx([90, 30, 30, 30, 30, 30])
    assert vanilla.spreads == pytest.approx([0, *[200**0.5] * 5])
    (theta,) = drawn["figures/uncertainty.png"][1]["snow"]  # ULFD alone has one
    assert theta.values == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert len(drawn["figures/uncertainty.png"][1]) == 19
    drawn.clear()
    plots.plots(metrics(vanilla=(0.5,)))
    assert list(drawn) == ["figures/accuracy.png"]
    assert drawn["figures/accuracy.png"][1]["Seen corruptions (15)"][0].spreads is None


def test_a_method_of_the_paper_looks_the_same_in_every_run(drawn):
    looks = []
    for run in (metrics(b=(0.5,), ulfd=(0.5,)), metrics(c=(0.5,), b=(0.5,), ulfd=(0.5,))):
        plots.plots(run)
        (curves, _) = drawn["figures/accuracy.png"][1].values()
        looks.append({curve.label: curve.style for curve in curves})
    assert [run["+ uncertainty (ULFD)"] for run in looks] == [3, 3]
    assert len(set(looks[1].values())) == 3
