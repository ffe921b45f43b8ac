"""DeepAugment's stand-in: made again in float64 one image at a time, and what it must be."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from reference_training.corruptions.random import Random
from reference_training.data import load
from reference_training.data.augmentations import augmix, deepaugment_stand_in
from reference_training.data.augmentations.random_network import DOMAIN
from reference_training.data.second_images import SECOND_IMAGES, Corruptions, Draws


@pytest.fixture(scope="module")
def images():
    return load("fashion-mnist-subset").train_images[:48]


def standardised(x):
    return (x - x.mean((1, 2), keepdim=True)) / x.std((1, 2), keepdim=True, correction=0)


class Network(nn.Module):
    """The same network for one image, of torch's own layers."""

    def __init__(self, random):
        super().__init__()
        self.blocks = nn.ModuleList()
        for _ in range(4):
            sizes = [(3, 9, 1), (3, 3, 1), (3, 3, 3), (3, 3, 5), (9, 3, 1)]
            layers = [nn.Conv2d(a, b, k, padding="same", bias=False).double() for a, b, k in sizes]
            for layer in layers:
                shape = layer.weight.shape
                weight = random.normal_field(*shape, std=math.sqrt(2 / math.prod(shape[1:])))
                layer.weight.data = weight[0].double()
            self.blocks.append(nn.ModuleList(layers))

    def forward(self, image, strength):
        x = standardised(image)
        for first, *branches, last in self.blocks:
            parts = functional.relu(first(x)).split(3)
            seen = [functional.relu(branches[0](parts[0]))]
            for part, branch in zip(parts[1:], branches[1:], strict=True):
                seen.append(functional.relu(branch(part + seen[-1])))
            x = x + strength * standardised(last(torch.cat(seen)))
        return standardised(x)


def test_it_is_the_network_of_its_draws(images):
    seeds = torch.arange(48) * 31
    ours = deepaugment_stand_in(images, seeds)
    assert ours.dtype == torch.uint8
    generator = torch.Generator().manual_seed(0)
    shown = 0
    for place in torch.randperm(48, generator=generator)[:8].tolist():
        random = Random(seeds[place : place + 1], DOMAIN)
        strength = random.uniform(1, high=0.75).item()
        image = images[place].double()
        with torch.no_grad():
            found = Network(random)(image, strength)
        deviation = image.std((1, 2), keepdim=True, correction=0)
        expected = (found * deviation + image.mean((1, 2), keepdim=True)).clamp(0, 255)
        # float32 and the rounding to whole levels
        assert (ours[place].double() - expected).abs().max() < 0.5 + 1e-2
        shown += (expected - image).abs().max() > 20
    assert shown >= 5


def test_an_image_depends_on_its_seed_and_pixels_alone(images):
    seeds = torch.arange(48)
    whole = deepaugment_stand_in(images, seeds)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))[:13]
    assert torch.equal(deepaugment_stand_in(images[order], seeds[order]), whole[order])
    assert torch.equal(deepaugment_stand_in(images[7:8], seeds[7:8]), whole[7:8])
    large = images[:2].repeat_interleave(7, 2).repeat_interleave(7, 3)
    both = deepaugment_stand_in(large, seeds[:2])
    assert torch.equal(deepaugment_stand_in(large[1:], seeds[1:2]), both[1:])
    assert deepaugment_stand_in(images[:0], seeds[:0]).shape == (0, 3, 32, 32)
    state = torch.get_rng_state()
    others = deepaugment_stand_in(images, seeds + 100)
    assert torch.equal(torch.get_rng_state(), state)
    assert (others != whole).flatten(1).any(1).sum() > 40


def test_it_changes_images_from_hardly_to_strongly_and_keeps_their_tone(images):
    x = images.repeat(10, 1, 1, 1)
    seeds = torch.arange(len(x))
    found = deepaugment_stand_in(x, seeds).double().flatten(2)
    clean = x.double().flatten(2)
    distance = (found - clean).pow(2).mean((1, 2)).sqrt() / clean.std((1, 2))
    assert distance.min() < 0.02
    assert distance.max() > 0.6
    strength = Random(seeds, DOMAIN).uniform(1, high=0.75)[:, 0]
    assert torch.corrcoef(torch.stack([strength, distance]))[0, 1] > 0.5
    assert (found.mean(2) - clean.mean(2)).abs().mean() < 12  # what the limits 0 and 255 cut off


def test_flat_images_stay_flat():
    for level in (0, 7, 255):
        flat = torch.full((4, 3, 32, 32), level, dtype=torch.uint8)
        assert torch.equal(deepaugment_stand_in(flat, torch.arange(4)), flat)


def test_together_with_augmix(images):
    """The names that experiments use: the stand-in, and AugMix of what it made."""
    seeds = torch.arange(48)
    draws = Draws(seeds, Random(seeds), torch.arange(48), 0, Corruptions())
    network = SECOND_IMAGES["deepaugment"](images, draws)
    assert torch.equal(network, deepaugment_stand_in(images, seeds))
    assert torch.equal(SECOND_IMAGES["deepaugment_augmix"](images, draws), augmix(network, seeds))
