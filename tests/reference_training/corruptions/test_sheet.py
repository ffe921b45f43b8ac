"""The command that draws the sheet of all corruptions."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from reference_training.corruptions import CORRUPTIONS
from reference_training.corruptions.__main__ import main, sheet

SMALL = ["--size", "32", "--frost", "procedural"]


def test_writes_a_sheet(tmp_path, capsys):
    picture = tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    out = tmp_path / "new" / "sheet.png"
    assert main(["--image", str(picture), "--out", str(out), *SMALL]) == 0
    assert "stand-in" in capsys.readouterr().out
    page = np.asarray(Image.open(out))
    assert page.shape[0] > 20 * 32
    # Nothing is left empty: every one of the 95 cells differs from the white page.
    cells = page[-19 * 36 :, -(5 * 36 + 16) : -16].reshape(19, 36, 5, 36, 3)
    assert (cells[:, :32] < 255).any(axis=(1, 3, 4)).all()


def test_the_public_package_beside(tmp_path):
    if importlib.util.find_spec("imagecorruptions") is None:
        pytest.skip("needs imagecorruptions-imaug")
    for name, more in (("one", ["--no-public"]), ("two", [])):
        options = ["--parameters", "imagenet224", "--out", str(tmp_path / f"{name}.png"), *more]
        assert main([*SMALL, *options]) == 0
    one, two = (Image.open(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert two.width > 1.5 * one.width
    assert two.height == one.height


def test_a_strip_stands_in_its_row():
    clean = np.zeros((32, 32, 3), np.uint8)
    strips = {
        name: [np.full((32, 32, 3), 10 * row + number, np.uint8) for number in range(5)]
        for row, name in enumerate(CORRUPTIONS)
    }
    page = np.asarray(sheet(clean, {"title": strips}))
    first_column = page[:, -(5 * 36 + 16) + 10].tolist()
    colours = [tuple(pixel) for pixel in first_column[-19 * 36 :]]
    assert [c for c in dict.fromkeys(colours) if c != (255,) * 3] == [
        (10 * r,) * 3 for r in range(19)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "30"], "--size is 30, but must be at least 32"),
        (["--size", "100"], "no severities are published for 100x100"),
        (["--image", "absent.png"], "--image absent.png: "),
        ([*SMALL, "--frost", "ice"], "--frost: 'ice' is unknown"),
        ([*SMALL, "--semantics", "kornia"], "--semantics: 'kornia' is unknown"),
    ],
)
def test_messages(arguments, message, capsys):
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
