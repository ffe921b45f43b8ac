"""Figures: every corruption is drawn, every curve once, and no two methods alike."""

import io
from functools import partial

import matplotlib.colors
import matplotlib.image
import pytest
import torch

from reference_training.corruptions import CORRUPTIONS
from reference_training.reporting import figures


def test_corruption_sheet_shows_every_corruption_and_severity(monkeypatch):
    asked = []

    def corrupt(images, name, severity, *, seeds, frost):
        assert images.shape == (5, 3, 32, 32)
        asked.append((name, severity, seeds.tolist(), frost))
        return images

    monkeypatch.setattr(figures, "corrupt", corrupt)
    image = torch.full((3, 32, 32), 77, dtype=torch.uint8)
    sheet = figures.corruption_sheet(image, 4, frost="procedural")
    assert asked == [(name, (1, 2, 3, 4, 5), [4] * 5, "procedural") for name in CORRUPTIONS]
    labels = [label.get_text() for axes in sheet.axes for label in axes.get_yticklabels()]
    assert labels == ["clean", *(name.replace("_", " ") for name in CORRUPTIONS)]
    shown = [axes.images[0].get_array() for axes in sheet.axes]
    pixels = sum(int((block[..., 3] == 255).sum()) for block in shown)
    assert pixels == (1 + 19 * 5) * 32 * 32
    with pytest.raises(ValueError, match="uint8 image"):
        figures.corruption_sheet(image.float(), 0)


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


def test_a_picture_is_drawn_in_both_themes():
    curves = {"p": [figures.Curve("a", 0, [1, 2, 3, 4, 5, 6])]}
    drawn = figures.picture(
        "a.png", "A.", partial(figures.severity_figure, curves, ylabel="%", columns=1)
    )
    assert (drawn.path, drawn.caption) == ("a.png", "A.")
    corners = [
        matplotlib.image.imread(io.BytesIO(png))[0, 0, :3] for png in (drawn.light, drawn.dark)
    ]
    assert [tuple(round(255 * value) for value in corner) for corner in corners] == [
        (255, 255, 255),
        (0x14, 0x17, 0x1A),
    ]
