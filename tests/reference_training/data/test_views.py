"""What a network sees of an image, in training and after it."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import resized_crop

from reference_training.corruptions.random import Random
from reference_training.data import views
from reference_training.data.views import CentralView, cropped, random_resized_crop


def test_squares_of_any_image():
    white = Image.new("RGB", (4, 2), "white")
    padded = CentralView(8, 8, pads=True)(white)
    assert padded[:, 3:5, 2:6].min() == 255
    assert int(padded.long().sum()) == 3 * 8 * 255
    assert CentralView(8, 8)(white).min() == 255  # enlarged
    assert CentralView(8, 8, pads=True)(Image.new("RGB", (9, 2), "white")).min() == 255
    levels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    same = CentralView(4, 4)(Image.fromarray(levels))
    assert np.array_equal(same.movedim(0, -1).numpy(), levels)


def levels(height, width, seed=0):
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def parts(height, width, count=4000):
    """top, left, rows and columns of many draws: (count, 4)."""
    seeds = torch.arange(count)
    drawn = [views._part(height, width, Random(seed[None], domain=3)) for seed in seeds]
    return np.array(drawn, dtype=float)


def test_a_resized_crop_is_torchvisions_of_the_same_part():
    image = levels(60, 90)
    for seed in torch.arange(5):
        part = views._part(60, 90, Random(seed[None], domain=views.SHAPES))
        picture = Image.fromarray(image.numpy())
        expected = np.array(resized_crop(picture, *part, [32, 32]))
        assert np.array_equal(random_resized_crop(image, seed, 32).numpy(), expected)


@pytest.mark.parametrize("size", [(60, 90), (224, 224), (100, 31)])
def test_the_parts_have_torchvisions_distribution(size):
    """Two samples of 4,000: each quantile of each number within 5 standard errors."""
    torch.manual_seed(0)
    transform = RandomResizedCrop(8)
    picture = Image.new("RGB", size[::-1])
    theirs = np.array(
        [
            transform.get_params(picture, list(transform.scale), list(transform.ratio))
            for _ in range(4000)
        ],
        dtype=float,
    )
    ours = parts(*size)
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= size[0]).all()
    assert (ours[:, 1] + ours[:, 3] <= size[1]).all()
    for own, other in zip(ours.T, theirs.T, strict=True):
        for share in (0.1, 0.5, 0.9):
            bound = np.quantile(other, share)
            error = np.sqrt(0.25 * 2 / 4000)
            assert abs((own <= bound).mean() - (other <= bound).mean()) < 5 * error


def test_what_no_shape_fits_gives_the_middle():
    assert views._part(1, 1000, Random(torch.tensor([0]), domain=3)) == (0, 499, 1, 1)
    assert views._part(1000, 1, Random(torch.tensor([0]), domain=3)) == (499, 0, 1, 1)


def test_crops_of_several_views_are_cut_alike():
    images = torch.randint(0, 256, (3, 2, 3, 9, 8), generator=torch.Generator().manual_seed(0))
    top, left = torch.tensor([0, 3, 4]), torch.tensor([1, 0, 3])
    found = cropped(images, top, left, 5)
    for image, down, right, square in zip(images, top, left, found, strict=True):
        assert torch.equal(square, image[..., down : down + 5, right : right + 5])
