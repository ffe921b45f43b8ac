"""Figures: every corruption is drawn, every curve once, and no two methods alike."""

import io

import matplotlib.image
import pytest
import torch
from PIL import Image

from reference_training.corruptions import CORRUPTIONS
from reference_training.reporting import figures
from tests.reference_training.fabricated import full, metrics


def test_corruption_sheet_has_the_clean_image_and_every_type_in_two_blocks(monkeypatch):
    asked = []

    def drawn(blocks, *, scale):
        asked.append(([list(rows) for _, rows in blocks], scale))
        return Image.new("RGB", (1, 1), "#14171a")

    monkeypatch.setattr(figures, "sheet", drawn)
    image = torch.full((3, 32, 32), 77, dtype=torch.uint8)
    found = figures.corruption_sheet(image, frost="procedural")
    names = ["clean", *CORRUPTIONS]
    assert asked == [([names[:10], names[10:]], 4)]
    assert Image.open(io.BytesIO(found)).getpixel((0, 0)) == (0x14, 0x17, 0x1A)


def test_severity_figure_draws_each_curve_once_in_the_legend():
    curves = [figures.Curve("a", 0, [1, 2, 3, 4, 5, 6]), figures.Curve("b", 1, [2] * 6, [1] * 6)]
    figure = figures.severity_figure({"p": curves, "q": curves}, ylabel="%", columns=2)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["p", "q"]
    assert figures.png(figure) == figures.png(figure)


def test_forty_nine_methods_look_different():
    curves = [figures.Curve(str(style), style, [style] * 6) for style in range(49)]
    (axes,) = figures.severity_figure({"p": curves}, ylabel="%", columns=1).axes
    looks = {
        (container.lines[0].get_color(), container.lines[0].get_marker())
        for container in axes.containers
    }
    assert len(looks) == 49


def test_a_picture_is_what_is_drawn():
    curves = {"p": [figures.Curve("a", 0, [1, 2, 3, 4, 5, 6])]}
    figure = figures.severity_figure(curves, ylabel="%", columns=1)
    drawn = figures.picture("a.png", "A.", figure)
    assert (drawn.path, drawn.caption) == ("a.png", "A.")
    pixels = matplotlib.image.imread(io.BytesIO(drawn.png))[..., :3]
    assert (pixels[0, 0] == 1).all()
    assert pixels.std() > 0.02


@pytest.fixture
def drawn(monkeypatch):
    """{path: (caption, {panel: its curves})} of what `plots` draws."""
    found = {}
    monkeypatch.setattr(figures, "severity_figure", lambda panels, **_: panels)
    monkeypatch.setattr(
        figures, "picture", lambda path, caption, panels: found.update({path: (caption, panels)})
    )
    return found


def test_of_many_methods_eight_are_shown_and_the_others_named(drawn):
    names = ["m0", "m1", "ulfd", "m2", "m3", "m4", "m5", "vanilla", "m6", "m7", "m8"]
    figures.plots(metrics(**dict.fromkeys(names, (0.5,))))
    caption, panels = drawn["figures/accuracy.png"]
    for curves in panels.values():
        labels = {curve.label for curve in curves}
        paper = {"Vanilla (clean only)", "+ uncertainty (ULFD)"}
        assert labels == paper | {f"m{number}" for number in range(6)}
        assert len({curve.style for curve in curves}) == 8
    assert "Left out, and in the tables: m6; m7; m8." in caption
    figures.plots(full())
    assert "Left out" not in drawn["figures/accuracy.png"][0]


def test_curves_are_the_clean_images_then_the_severities(drawn):
    figures.plots(full())
    (vanilla, *_), _ = drawn["figures/accuracy.png"][1].values()
    assert vanilla.values == pytest.approx([90, 30, 30, 30, 30, 30])
    assert vanilla.spreads == pytest.approx([0, *[200**0.5] * 5])
    (theta,) = drawn["figures/uncertainty.png"][1]["snow"]  # ULFD alone has one
    assert theta.values == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert len(drawn["figures/uncertainty.png"][1]) == 19
    drawn.clear()
    figures.plots(metrics(vanilla=(0.5,)))
    assert list(drawn) == ["figures/accuracy.png"]
    assert drawn["figures/accuracy.png"][1]["Seen corruptions (15)"][0].spreads is None


def test_a_method_of_the_paper_looks_the_same_in_every_run(drawn):
    looks = []
    for run in (metrics(b=(0.5,), ulfd=(0.5,)), metrics(c=(0.5,), b=(0.5,), ulfd=(0.5,))):
        figures.plots(run)
        (curves, _) = drawn["figures/accuracy.png"][1].values()
        looks.append({curve.label: curve.style for curve in curves})
    assert [run["+ uncertainty (ULFD)"] for run in looks] == [3, 3]
    assert len(set(looks[1].values())) == 3
