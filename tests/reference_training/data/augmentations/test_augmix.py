"""AugMix's images against Pillow, one image and one operation at a time."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from reference_training.corruptions.random import Random
from reference_training.data import load
from reference_training.data.augmentations import OPERATIONS, augmix
from reference_training.data.augmentations import mixing as module
from reference_training.data.second_images import SECOND_IMAGES, Corruptions, Draws, second_image

IMAGES = 24


def affine(picture: Image.Image, *matrix: float) -> Image.Image:
    return picture.transform(picture.size, Image.AFFINE, matrix, resample=Image.BILINEAR)


def by_pillow(name: str, picture: Image.Image, level: float, sign: float) -> Image.Image:
    """The operation as AugMix calls Pillow; its ranges are at level 10."""
    width, height = picture.size
    match name:
        case "autocontrast":
            return ImageOps.autocontrast(picture)
        case "equalize":
            return ImageOps.equalize(picture)
        case "posterize":
            return ImageOps.posterize(picture, 4 - int(level * 4 / 10))
        case "solarize":
            return ImageOps.solarize(picture, 256 - int(level * 256 / 10))
        case "rotate":
            return picture.rotate(sign * int(level * 30 / 10), resample=Image.BILINEAR)
        case "shear_x":
            return affine(picture, 1, sign * level * 0.3 / 10, 0, 0, 1, 0)
        case "shear_y":
            return affine(picture, 1, 0, 0, sign * level * 0.3 / 10, 1, 0)
        case "translate_x":
            return affine(picture, 1, 0, sign * int(level * (width / 3) / 10), 0, 1, 0)
        case "translate_y":
            return affine(picture, 1, 0, 0, 0, 1, sign * int(level * (height / 3) / 10))
    raise AssertionError(name)


def pillow(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def pictures(height: int, width: int) -> torch.Tensor:
    """Noise, narrow and coarse histograms, one level only, one level nearly everywhere."""
    generator = torch.Generator().manual_seed(height)
    images = torch.randint(0, 256, (IMAGES, 3, height, width), generator=generator)
    images[4:8] = images[4:8] // 8 + 30
    images[8:12] = images[8:12] // 64 * 60
    images[12, 0] = 7
    mostly = torch.rand(3, height, width, generator=generator) < 0.9
    images[13] = torch.where(mostly, 250, images[13])
    images[14] = torch.where(mostly, 0, images[14])
    if (height, width) == (32, 32):
        images[15:] = load("fashion-mnist-subset").train_images[15:IMAGES]
    return images.to(torch.uint8)


@pytest.mark.parametrize("size", [(32, 32), (224, 224), (45, 33)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_pillows_to_the_bit(name, size):
    images = pictures(*size)
    if size == (224, 224):
        images = images[::3]
    count = len(images)
    generator = torch.Generator().manual_seed(1)
    levels = torch.rand(count, generator=generator, dtype=torch.float64) * 10
    if name == "rotate":  # whole degrees, among them all that occur
        levels = torch.arange(count).double() * 10 / 30 + 0.01
    signs = 1.0 - 2.0 * (torch.arange(count) % 2)
    before = images.clone()
    ours = OPERATIONS[name](images, levels, signs.double())
    assert torch.equal(images, before)
    assert ours.dtype == torch.uint8
    for image, found, level, sign in zip(images, ours, levels, signs, strict=True):
        theirs = tensor(by_pillow(name, pillow(image), level.item(), sign.item()))
        assert torch.equal(found, theirs)
    assert not torch.equal(ours, images)


@pytest.mark.parametrize(("size", "highest"), [(32, 3), (48, 1), (224, 1)])
def test_the_whole_of_it_by_pillow_in_float64(size, highest):
    """The chains, weights and mixture made again from the same draws, one image at a time."""
    images = pictures(size, size)[:12]
    seeds = torch.arange(12) * 7919
    names = list(OPERATIONS)
    mixed = augmix(images, seeds)
    assert mixed.dtype == torch.float32
    for place, image in enumerate(images):
        seed = seeds[place : place + 1]
        random = Random(seed, module.DOMAIN)
        skip = random.uniform(1)[0, 0].item()
        draws = -np.log1p(-random.uniform(3)[0].numpy())
        expected = (1 - skip) * image.double()
        for chain in range(3):
            random = Random(seed, module.DOMAIN + 1 + chain)
            depth = random.integers(1, 4, 1)[0, 0].item()
            kinds = random.integers(0, 9, 3)[0].tolist()
            levels = random.uniform(3, low=0.1, high=highest)[0].tolist()
            signs = (1 - 2 * random.integers(0, 2, 3)[0]).tolist()
            picture = pillow(image)
            for kind, level, sign in list(zip(kinds, levels, signs, strict=True))[:depth]:
                picture = by_pillow(names[kind], picture, level, sign)
            expected += skip * draws[chain] / draws.sum() * tensor(picture).double()
        torch.testing.assert_close(mixed[place].double(), expected, rtol=0, atol=255 * 2**-21)


def test_an_image_depends_on_its_seed_and_pixels_alone():
    images, seeds = pictures(32, 32), torch.arange(IMAGES)
    whole = augmix(images, seeds)
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0))[:7]
    assert torch.equal(augmix(images[order], seeds[order]), whole[order])
    assert torch.equal(augmix(images[5:6], seeds[5:6]), whole[5:6])
    state = torch.get_rng_state()
    augmix(images[:1], seeds[:1])
    assert torch.equal(torch.get_rng_state(), state)
    others = augmix(images, seeds + 1000)
    assert ((others - whole).abs().amax((1, 2, 3)) > 1).sum() > IMAGES - 4
    assert whole.min() >= 0
    assert whole.max() <= 255
    assert augmix(images[:0], seeds[:0]).shape == (0, 3, 32, 32)


def test_weights_are_dirichlets_and_betas():
    """Read off a mixture whose four parts are known: an image, and its chains one by one."""
    count = 2000
    image = pictures(32, 32)[20].expand(count, -1, -1, -1)
    seeds = torch.arange(count)
    parts = [module._chain(image, Random(seeds, module.DOMAIN + 1 + n)) for n in range(3)]
    columns = torch.stack([image, *parts], -1).flatten(1, 3).double()
    mixed = augmix(image, seeds).flatten(1).double()
    weights = torch.linalg.lstsq(columns, mixed[..., None], driver="gelsd").solution[..., 0]
    distinct = torch.linalg.svdvals(columns)[:, -1] > 200
    weights = weights[distinct]
    assert len(weights) > count / 2
    # They add up to 1, so that mixing before a normalisation is mixing after it.
    assert (weights.sum(1) - 1).abs().max() < 1e-5
    error = 5 / len(weights) ** 0.5
    skip, shares = 1 - weights[:, :1], weights[:, 1:] / (1 - weights[:, :1])
    assert abs(skip.mean() - 1 / 2) < error / 12**0.5
    assert abs(skip.var() - 1 / 12) < error / 12
    assert (shares.mean(0) - 1 / 3).abs().max() < error / 18**0.5
    assert (shares.var(0) - 1 / 18).abs().max() < 1.5 * error / 18


def draws(count=6) -> Draws:
    seeds = torch.arange(count) + 50
    return Draws(seeds, Random(seeds), torch.arange(count), 0, Corruptions())


@pytest.mark.parametrize("kind", sorted(set(SECOND_IMAGES) - {"clean"}))
def test_views_are_independent_and_the_first_is_the_single_one(kind):
    images = pictures(32, 32)[15:21]
    both = second_image(kind, images, draws(), 2)
    assert both.shape == (6, 2, 3, 32, 32)
    assert torch.equal(both[:, 0], second_image(kind, images, draws()))
    again = second_image(kind, images, draws(), 3)
    assert torch.equal(again[:, :2], both)
    apart = (again[:, 1].float() - again[:, 2].float()).abs().amax((1, 2, 3))
    assert (apart > 1).sum() >= 5
    assert (both[:, 0] != both[:, 1]).flatten(1).any(1).sum() >= 5
