"""Figures: every corruption is drawn, every curve once, and no two methods alike."""

import io
from functools import partial

import matplotlib.colors
import matplotlib.image
import torch
from PIL import Image

from reference_training.corruptions import CORRUPTIONS
from reference_training.reporting import figures


def test_corruption_sheet_has_the_clean_image_and_every_type_in_two_blocks(monkeypatch):
    asked = []

    def drawn(blocks, *, scale, paper, ink):
        asked.append(([list(rows) for _, rows in blocks], scale, paper, ink))
        return Image.new("RGB", (1, 1), paper)

    monkeypatch.setattr(figures, "sheet", drawn)
    image = torch.full((3, 32, 32), 77, dtype=torch.uint8)
    found = figures.corruption_sheet("a.png", "A.", image, frost="procedural")
    names = ["clean", *CORRUPTIONS]
    halves = [names[:10], names[10:]]
    assert asked == [(halves, 4, theme.page, theme.ink) for theme in (figures.LIGHT, figures.DARK)]
    assert Image.open(io.BytesIO(found.dark)).getpixel((0, 0)) == (0x14, 0x17, 0x1A)


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
