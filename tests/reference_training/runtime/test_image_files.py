"""The one reader of image files, and the labels of class folders."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from reference_training.data.class_folders import ClassFolders, ImageFiles
from reference_training.data.photographs import ImageFolder
from reference_training.data.views import CentralView, decode
from reference_training.runtime.errors import RunError
from reference_training.runtime.image_files import (
    class_names,
    images_below,
    list_images,
    open_rgb,
)
from reference_training.uncertainty.ranking import read_images

LEVELS = np.linspace(0, 65535, 12 * 9).round().astype(np.uint16).reshape(9, 12)
SIXTEEN = {"x.png": "PNG", "x.tif": "TIFF", "x.pgm": "PPM"}


def write(path, image=None, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (8, 8), (1, 2, 3))).save(path, kind)


@pytest.mark.parametrize("name", SIXTEEN)
def test_grey_levels_of_16_bits_keep_their_upper_8_everywhere(tmp_path, name):
    path = tmp_path / "class" / name
    write(path, Image.fromarray(LEVELS), SIXTEEN[name])
    expected = np.repeat((LEVELS >> 8).astype(np.uint8)[:, :, None], 3, 2)
    assert np.array_equal(np.array(open_rgb(path)), expected)
    assert np.array_equal(decode(path.read_bytes()).numpy(), expected)
    image = ClassFolders(tmp_path, 1, "as_is").clean("clean").images[0]
    assert np.array_equal(image.movedim(0, -1).numpy(), expected)
    square = Image.fromarray(LEVELS[:, :9])
    write(path, square, SIXTEEN[name])
    _, (square,) = read_images(tmp_path, [f"class/{name}"], CentralView(9, 9))
    assert np.array_equal(square.movedim(0, -1).numpy(), expected[:, :9])


@pytest.mark.parametrize("values", [np.float32([[0.5]]), np.int32([[200]]), np.int32([[-1]])])
def test_pixels_without_a_range_are_refused(values):
    content = io.BytesIO()
    Image.fromarray(values).save(content, "TIFF")
    with pytest.raises(ValueError, match="no fixed range"):
        open_rgb(content)


def test_a_program_is_never_run_whatever_its_name_says(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    def run(*arguments, **options):
        raise AssertionError("Ghostscript was called")

    path = tmp_path / "class" / "x.jpg"
    write(path, kind="EPS")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    message = r"x.jpg cannot be read \(no image of a known format"
    with pytest.raises(RunError, match=message):
        ImageFiles(ImageFolder(tmp_path))[0]
    with pytest.raises(ValueError, match="no image of a known format"):
        decode(path.read_bytes())
    (row,), squares = read_images(tmp_path, ["class/x.jpg"], CentralView(8, 8))
    assert "no image of a known format" in row["error"]
    assert not squares


def test_the_camera_s_note_is_followed_where_it_is_asked_for(tmp_path):
    path = tmp_path / "x.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (8, 4)).save(path, exif=exif)
    assert open_rgb(path).size == (8, 4)
    assert open_rgb(path, upright=True).size == (4, 8)


def test_class_folders_named_by_numbers_are_labelled_by_them(tmp_path):
    for label in range(12):
        write(tmp_path / str(label) / "x.png", Image.new("RGB", (8, 8), (label, 0, 0)))
    assert class_names(tmp_path) == [str(label) for label in range(12)]
    data = ClassFolders(tmp_path, 12, "as_is")
    images = data.clean("clean").images
    assert [int(images[at][0, 0, 0]) for at in range(12)] == data.labels.tolist()
    trained = ImageFolder(tmp_path)
    reds = [int(decode(trained.read(at))[0, 0, 0]) for at in range(12)]
    assert reds == trained.labels.tolist() == list(range(12))
    (tmp_path / "11").rename(tmp_path / "12")  # incomplete: these are names
    assert class_names(tmp_path) == sorted(map(str, [*range(11), 12]))


def test_hidden_files_and_other_kinds_are_left_out_and_counted(tmp_path, capsys):
    for name in ("a", "b"):
        write(tmp_path / name / "x.png")
        write(tmp_path / name / "._x.png")
    write(tmp_path / ".ipynb_checkpoints" / "x.png")
    write(tmp_path / "a" / "deep" / ".cache" / "x.png")
    write(tmp_path / "a" / "y.gif", kind="GIF")
    (tmp_path / "a" / "README").write_text("about")
    assert class_names(tmp_path) == ["a", "b"]
    files, labels = list_images(tmp_path, ["a", "b"])
    assert files == ["a/x.png", "b/x.png"]
    assert torch.equal(labels, torch.tensor([0, 1]))
    (told,) = capsys.readouterr().err.splitlines()  # no bar, as standard error is no terminal
    said = {"1 .gif file (y.gif)", "1 other file (README)", "2 hidden files (._x.png)"}
    said.add("2 hidden folders (.cache, .ipynb_checkpoints)")
    assert told.startswith(f"{tmp_path}: left out, as no images: ")
    assert all(part in told for part in said)
    images_below(tmp_path)
    assert capsys.readouterr().err.splitlines() == [told]
    (tmp_path / "b" / "x.png").unlink()
    with pytest.raises(RunError, match=r"no image in the class folders b .*Images end in .jpg"):
        list_images(tmp_path, ["a", "b"])


def test_images_below_a_folder_at_any_depth(tmp_path):
    for name in ("b/c/z.PNG", "y.png", "b/.hidden.png"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert images_below(tmp_path) == ["y.png", "b/c/z.PNG"]
    with pytest.raises(RunError, match="there is no image below"):
        images_below(tmp_path / "nowhere")
