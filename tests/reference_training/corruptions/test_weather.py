import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from reference_training.corruptions import corrupt, frost_source
from reference_training.corruptions import frost as frost_module
from reference_training.corruptions.frost import (
    covering,
    frost,
    load_overlays,
    procedural_overlays,
)
from reference_training.corruptions.parameters import CIFAR32
from reference_training.corruptions.random import Random
from reference_training.corruptions.weather import diamond_square, fog, snow


def scalar_diamond_square(random, count, side, decay):
    """The height map point by point, with the same draws in the same order."""
    maps = np.zeros((count, side, side))
    field = random.uniform_field(side * side - 1, low=-1, high=1).double().numpy()
    step, wibble, used = side, 100.0, 0
    while step >= 2:
        half, cells = step // 2, side // step
        noise = field[:, used : used + 3 * cells * cells].reshape(-1, 3, cells, cells) * wibble**2
        used += 3 * cells * cells
        for heights, squares, tops, lefts in zip(maps, *noise.swapaxes(0, 1), strict=True):

            def at(row, column, heights=heights):
                return heights[row % side, column % side]

            cell = [(i, j, i * step, j * step) for i in range(cells) for j in range(cells)]
            for i, j, r, c in cell:
                corners = at(r, c) + at(r + step, c) + at(r, c + step) + at(r + step, c + step)
                heights[r + half, c + half] = corners / 4 + squares[i, j]
            for i, j, r, c in cell:
                around = at(r, c) + at(r, c + step) + at(r + half, c + half)
                heights[r, c + half] = (around + at(r - half, c + half)) / 4 + tops[i, j]
                around = at(r, c) + at(r + step, c) + at(r + half, c + half)
                heights[r + half, c] = (around + at(r + half, c - half)) / 4 + lefts[i, j]
        step, wibble = half, wibble / decay
    maps -= maps.min(axis=(1, 2), keepdims=True)
    return maps / maps.max(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("decay", [3, 1.75])
@pytest.mark.parametrize("side", [2, 4, 32])
def test_diamond_square(draws, side, decay):
    expected = scalar_diamond_square(draws(), 6, side, decay)
    np.testing.assert_allclose(diamond_square(draws(), side, decay), expected, atol=1e-5)


@pytest.mark.parametrize(("amount", "decay"), CIFAR32["fog"])
def test_fog(unit, draws, amount, decay):
    plasma = diamond_square(draws(), 32, decay).numpy()
    for image, cloud, actual in zip(
        unit.numpy(), plasma, fog(unit, draws(), amount, decay), strict=True
    ):
        expected = (image + amount * cloud) * image.max() / (image.max() + amount)
        np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_fog_takes_its_map_from_the_image_size(draws):
    images = torch.zeros(6, 3, 20, 33, dtype=torch.float64)
    images[:, :, 0, 0] = 1
    plasma = diamond_square(draws(), 64, 2)[:, None, :20, :33]
    torch.testing.assert_close(fog(images, draws(), 1.0, 2), (images + plasma.double()) / 2)


@pytest.mark.parametrize("row", CIFAR32["snow"])
def test_snow(unit, draws, row):
    mean, std, factor, threshold, radius, sigma, keep = row
    random = draws()
    layers = random.normal_field(1, 32, 32, mean=mean, std=std).numpy()[:, 0]
    angles = random.uniform(low=-135, high=-45).numpy()
    assert ((angles > -135) & (angles < -45)).all()
    result = snow(unit, draws(), *row)
    for i in range(2):
        side = math.ceil(32 / factor)
        top = (32 - side) // 2
        layer = ndimage.zoom(layers[i, top : top + side, top : top + side], factor, order=1)
        trim = (len(layer) - 32) // 2
        layer = layer[trim : trim + 32, trim : trim + 32].copy()
        layer[layer < threshold] = 0
        layer = np.floor(layer.clip(0, 1) * 255 + 2e-4)
        weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
        blurred = np.zeros((32, 32))
        for tap, weight in enumerate(weights / weights.sum()):
            dy = math.ceil(tap * math.sin(math.radians(angles[i])) - 0.5)
            dx = math.ceil(tap * math.cos(math.radians(angles[i])) - 0.5)
            rows, columns = (np.arange(32) + dy).clip(0, 31), (np.arange(32) + dx).clip(0, 31)
            blurred += weight * layer[np.ix_(rows, columns)]
        blurred = np.floor(blurred + 0.5 + 1e-6) / 255
        image = unit[i].numpy()
        grey = np.tensordot([0.299, 0.587, 0.114], image, axes=1)
        image = keep * image + (1 - keep) * np.maximum(image, grey * 1.5 + 0.5)
        expected = image + blurred + blurred[::-1, ::-1]
        np.testing.assert_allclose(result[i], expected, atol=1e-9)


def test_frost_is_a_crop_of_one_overlay():
    small = procedural_overlays().unflatten(-1, (256, 2)).unflatten(2, (256, 2)).mean((3, 5))
    random = Random(torch.arange(400))
    chosen = random.integers(0, 5)
    places = (random.uniform(2) * torch.tensor([256 - 20, 256 - 31])).floor().int().tolist()
    images = torch.full((400, 3, 20, 31), 0.5, dtype=torch.float64)
    result = frost(images, Random(torch.arange(400)), 1, 0.2, 0.5, "procedural")
    for overlay, (y, x), actual in zip(small[chosen].round(), places, result, strict=True):
        crop = overlay[:, y : y + 20, x : x + 31] / 255
        torch.testing.assert_close(actual, 0.5 + 0.2 * crop)
    assert set(chosen.tolist()) == {0, 1, 2, 3, 4}


def test_frost_mixes_by_its_weights(unit, draws):
    one, two = (frost(unit, draws(), a, b, 0.2, "procedural") for a, b in ((1, 0.2), (0.75, 0.45)))
    overlay = (one - unit) / 0.2
    torch.testing.assert_close(two, 0.75 * unit + 0.45 * overlay)


def test_procedural_overlays_look_like_the_photographs():
    overlays = procedural_overlays()
    assert torch.equal(overlays, procedural_overlays())
    assert overlays.shape == (5, 3, 512, 512)
    mean = overlays.mean(dim=(2, 3))
    assert (mean[0] - torch.tensor([78.0, 149, 166])).abs().max() < 4
    assert (mean[4] - torch.tensor([112.0, 123, 135])).abs().max() < 4
    assert overlays.std(dim=(2, 3)).min() > 10


@pytest.mark.parametrize(("height", "width"), [(103, 32), (40, 500), (102, 102)])
def test_frost_enlarges_overlays_smaller_than_the_image(draws, height, width):
    """White images under a weight of 0 are the overlays themselves: nowhere empty."""
    images = torch.ones(6, 3, height, width, dtype=torch.float64)
    mixed = frost(images, draws(), 0, 1, 0.2, "procedural")
    assert mixed.shape == images.shape
    assert (mixed > 0.02).float().mean() > 0.99
    assert mixed.flatten(2).std(dim=2).min() > 0.01


def test_an_overlay_that_covers_the_image_stays_as_it_is():
    overlay = torch.zeros(3, 40, 50, dtype=torch.uint8)
    assert covering(overlay, 39, 49, 0) is overlay
    assert covering(overlay, 40, 49, 0).shape == (3, 41, 52)
    assert covering(overlay, 39, 100, 0).shape == (3, 81, 101)


@pytest.fixture
def forget():
    """Forget what was found installed, before and after."""

    def clear():
        frost_module.photograph_folder.cache_clear()
        load_overlays.cache_clear()

    clear()
    yield
    clear()


@pytest.fixture
def absent(monkeypatch, forget):
    monkeypatch.setattr(frost_module.importlib.util, "find_spec", lambda name: None)


@pytest.fixture
def installed(monkeypatch, tmp_path, forget):
    """A package with five overlays of different sizes, which must never be imported."""
    folder = tmp_path / "imagecorruptions" / "frost"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    rng = np.random.default_rng(0)
    pictures = []
    for name, side in (
        ("1.png", 300),
        ("2.png", 250),
        ("3.png", 260),
        ("4.jpg", 270),
        ("5.jpg", 400),
    ):
        pixels = rng.integers(0, 256, (side, 2 * side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"frost{name}")
        pictures.append(np.asarray(Image.open(folder / f"frost{name}")))
    monkeypatch.delitem(sys.modules, "imagecorruptions", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return pictures


def test_photographs_absent(absent, images):
    assert "stand-in" in frost_source()
    with pytest.raises(FileNotFoundError, match="pip install imagecorruptions-imaug"):
        frost_source("photographs")
    with pytest.raises(FileNotFoundError, match='frost="procedural"'):
        corrupt(images, "frost", 1, seeds=torch.arange(6), frost="photographs")
    chosen = corrupt(images, "frost", 1, seeds=torch.arange(6), frost="procedural")
    with pytest.warns(UserWarning, match="not ImageNet-C's frost"):
        assert torch.equal(corrupt(images, "frost", 1, seeds=torch.arange(6)), chosen)


def test_a_folder_of_the_users(installed, tmp_path, images):
    folder = tmp_path / "imagecorruptions" / "frost"
    assert frost_source(folder) == f"photographs: five overlays from the folder {folder}"
    assert frost_source(str(folder)) == frost_source(folder)
    chosen = corrupt(images, "frost", 1, seeds=torch.arange(6), frost=folder)
    installed_ones = corrupt(images, "frost", 1, seeds=torch.arange(6), frost="photographs")
    assert torch.equal(chosen, installed_ones)
    (folder / "frost4.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks frost4\.jpg; put ImageNet-C's overlays"):
        corrupt(images, "frost", 1, seeds=torch.arange(6), frost=folder)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (600, 64), (40, 640)])
def test_enlarged_overlays_cover_the_image(height, width):
    whole = load_overlays("procedural", 1, torch.device("cpu"))
    overlays = [covering(overlay, height, width, 1.1) for overlay in whole]
    assert all(o.shape[1] > height and o.shape[2] > width for o in overlays)
    factor = 1.1 * max(1, height / 512, width / 512)
    assert overlays[0].shape[1:] == (math.ceil(512 * factor),) * 2


def test_photographs_installed(installed):
    assert frost_source().startswith("photographs")
    assert frost_source("procedural").startswith("procedural")
    count = 64
    black = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
    options = {"seeds": torch.arange(count)}
    result = corrupt(black, "frost", 1, **options)
    assert torch.equal(result, corrupt(black, "frost", 1, **options, frost="photographs"))
    assert not torch.equal(result, corrupt(black, "frost", 1, **options, frost="procedural"))
    # Resizing to a fifth reads the middle pixel of each 5x5 block.
    expected = [np.floor(0.2 * picture[2::5, 2::5] + 1e-6) for picture in installed]
    chosen = set()
    for image in result.permute(0, 2, 3, 1).numpy():
        found = [
            number
            for number, picture in enumerate(expected)
            for y, x in np.argwhere((picture == image[0, 0]).all(axis=2))
            if np.array_equal(picture[y : y + 32, x : x + 32], image)
        ]
        assert found
        chosen.add(found[0])
    assert chosen == {0, 1, 2, 3, 4}
