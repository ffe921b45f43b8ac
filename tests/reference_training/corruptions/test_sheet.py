"""The command that draws the sheet of all corruptions."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from reference_training.corruptions import CORRUPTIONS, corrupt
from reference_training.corruptions.__main__ import main
from reference_training.corruptions.sheet import corrupted_rows, sheet

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


def test_an_image_stands_in_its_row_and_block():
    rows = {
        name: [np.full((32, 32, 3), 10 * row + number, np.uint8) for number in range(5)]
        for row, name in enumerate(CORRUPTIONS)
    }
    page = np.asarray(sheet([("title", rows), ("other", rows)]))
    left, right = np.split(page, 2, axis=1)
    for block in (left, right):
        cells = block[-19 * 36 :, -(5 * 36 + 16) : -16].reshape(19, 36, 5, 36, 3)
        for row in range(19):
            for number in range(5):
                assert (cells[row, :32, number, :32] == 10 * row + number).all()
    assert tuple(page[0, 0]) == (255, 255, 255)


def test_a_sheet_in_parts_has_them_side_by_side_under_one_title():
    rows = {str(row): [np.full((32, 32, 3), row, np.uint8)] for row in range(5)}
    page = np.asarray(sheet([("title", rows)], across=2))
    left = np.asarray(sheet([("title", {name: rows[name] for name in "012"})]))
    right = np.asarray(sheet([("", {name: rows[name] for name in "34"})]))
    assert (page[:, : left.shape[1]] == left).all()
    assert (page[: len(right), left.shape[1] :] == right).all()
    assert (page[len(right) :, left.shape[1] :] == 255).all()


def test_a_scaled_sheet_repeats_pixels():
    image = np.arange(32 * 32 * 3, dtype=np.uint16).astype(np.uint8).reshape(32, 32, 3)
    page = np.asarray(sheet([("", {"clean": [image]})], scale=3))
    cell = page[-(96 + 4) : -4, -(5 * 100 + 16) :][:, :96]
    assert (cell == image.repeat(3, axis=0).repeat(3, axis=1)).all()


def test_the_rows_are_every_type_at_every_severity():
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    rows = corrupted_rows(image, 4, frost="procedural")
    assert list(rows) == ["clean", *CORRUPTIONS]
    assert (rows["clean"][0] == image.permute(1, 2, 0).numpy()).all()
    for name in CORRUPTIONS:
        for severity, pixels in enumerate(rows[name], 1):
            expected = corrupt(image[None], name, severity, seeds=4, frost="procedural")[0]
            assert (pixels == expected.permute(1, 2, 0).numpy()).all()
    assert all(len(rows[name]) == 5 for name in CORRUPTIONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "30"], "--size is 30, but must be at least 32"),
        ([*SMALL, "--across", "0"], "--across is 0, but must be at least 1"),
        (["--image", "absent.png"], "--image absent.png cannot be read"),
        (["--out", "sheet.jpg"], "--out is sheet.jpg, but must be the name of a PNG file"),
        ([*SMALL, "--frost", "ice"], "--frost: 'ice' is unknown"),
        ([*SMALL, "--semantics", "kornia"], "--semantics: 'kornia' is unknown"),
    ],
)
def test_messages(arguments, message, capsys):
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_a_picture_that_would_start_a_program_is_none(tmp_path, capsys):
    """Pillow hands EPS, whatever the file is called, to Ghostscript."""
    picture = tmp_path / "picture.jpg"
    Image.new("RGB", (40, 40)).save(picture, "EPS")
    assert Image.open(picture).format == "EPS"
    assert main(["--image", str(picture), "--out", str(tmp_path / "sheet.png"), *SMALL]) == 1
    assert "no image of a known format" in capsys.readouterr().err
