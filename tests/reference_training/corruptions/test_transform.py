"""`RandomCorruption` as a transform: in a Compose, in the workers of a DataLoader, on a batch."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from reference_training.corruptions import SEEN, RandomCorruption, corrupt

KINDS = ("gaussian_noise", "contrast", "brightness", "fog")


def picture(seed):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (33, 40, 3), dtype=np.uint8))


class Pictures(Dataset):
    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 12

    def __getitem__(self, at):
        return self.transform(picture(at)), at


def epochs(workers, transform=None, count=2, **options):
    """{position: image} of each epoch, after the same seed."""
    transform = transform or v2.Compose([RandomCorruption(KINDS), v2.PILToTensor()])
    loader = DataLoader(Pictures(transform), 3, shuffle=True, num_workers=workers, **options)
    torch.manual_seed(5)
    found = []
    for _ in range(count):
        batches = list(loader)
        at = torch.cat([places for _, places in batches])
        found.append(torch.cat([images for images, _ in batches])[at.argsort()])
    return found


def test_draws_alike_for_any_number_of_workers_and_anew_in_each_epoch():
    none, one, four = (epochs(workers) for workers in (0, 1, 4))
    for ours, theirs in ((none, one), (none, four)):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    changed = (none[0] != none[1]).flatten(1).any(1)
    assert changed.sum() >= 11  # contrast at the same severity may come twice: one in 20
    again = epochs(0)
    assert torch.equal(none[1], again[1])
    torch.manual_seed(6)
    other = next(iter(DataLoader(Pictures(v2.Compose([RandomCorruption(), v2.ToImage()])), 12)))
    assert not torch.equal(other[0], none[0])


def test_no_draws_are_taken_from_the_generator_that_the_training_uses():
    torch.manual_seed(5)
    plain = DataLoader(Pictures(v2.PILToTensor()), 3, shuffle=True)
    list(plain)
    state = torch.get_rng_state()
    epochs(0, count=1)
    assert torch.equal(state, torch.get_rng_state())


def test_persistent_workers_need_the_number_of_the_epoch():
    transform = RandomCorruption(KINDS)
    whole = v2.Compose([transform, v2.PILToTensor()])
    loader = DataLoader(Pictures(whole), 12, num_workers=1, persistent_workers=True)
    with pytest.raises(RuntimeError, match=r"persistent workers keep one seed.*set_epoch\(epoch\)"):
        next(iter(loader))
    loader = DataLoader(Pictures(whole), 12, num_workers=2, persistent_workers=True)
    found = []
    for epoch in (0, 1, 0):
        transform.set_epoch(epoch)
        found.append(next(iter(loader))[0])
    assert (found[0] != found[1]).flatten(1).any(1).sum() >= 11
    assert torch.equal(found[0], found[2])


def test_a_pair_is_the_clean_sample_and_its_degraded_one():
    transform = RandomCorruption(("contrast",), (3,), pair=True)
    clean, degraded = transform(picture(0))
    assert np.array_equal(np.asarray(clean), np.asarray(picture(0)))
    assert np.array_equal(np.asarray(degraded), np.asarray(corrupt(picture(0), "contrast", 3)))
    boxes = tv_tensors.BoundingBoxes([[1, 2, 3, 4]], format="XYXY", canvas_size=(33, 40))
    sample = {"image": tv_tensors.Image(picture(1)), "boxes": boxes, "label": torch.tensor(3)}
    before, after = transform(sample)
    assert torch.equal(before["image"], sample["image"])
    assert isinstance(after["image"], tv_tensors.Image)
    assert torch.equal(after["image"], corrupt(sample["image"], "contrast", 3))
    assert torch.equal(after["boxes"], boxes)
    assert after["label"] == 3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_image_of_a_batch_has_its_own_draw(dtype):
    images = torch.full((64, 3, 32, 32), 100, dtype=torch.uint8)
    images = images if dtype == torch.uint8 else images / 255
    torch.manual_seed(0)
    found = RandomCorruption(KINDS)(images)
    assert found.dtype == dtype
    different = {image.numpy().tobytes() for image in found}
    assert len(different) > 30  # contrast leaves a flat image as it is; brightness has 5 results
    torch.manual_seed(0)
    assert torch.equal(found, RandomCorruption(KINDS)(images))
    assert not torch.equal(found, RandomCorruption(KINDS)(images))


def test_types_and_severities_are_each_as_likely():
    """In 3000 draws each of 15 x 5 has 40 +- 6.3; the bound is 4.5 standard deviations."""
    transform, counts = RandomCorruption(), torch.zeros(15, 5)
    params = transform.make_params([torch.zeros(3000, 3, 1, 1)])
    for kind, severity in zip(params["kinds"], params["severities"], strict=True):
        counts[SEEN.index(kind), severity - 1] += 1
    assert (counts - 40).abs().max() < 4.5 * 40**0.5
    assert params["seeds"].unique().numel() == 3000


def test_a_share_stays_clean():
    images = torch.randint(0, 256, (400, 3, 8, 8), dtype=torch.uint8)
    torch.manual_seed(0)
    found = RandomCorruption(("gaussian_noise",), (5,), p=0.25)(images)
    changed = (found != images).flatten(1).any(1).sum()
    assert abs(changed - 100) < 4.5 * (400 * 0.25 * 0.75) ** 0.5
    assert torch.equal(RandomCorruption(p=0)(images), images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": ("gausian_noise",)}, "did you mean 'gaussian_noise'"),
        ({"kinds": ()}, "at least one of each"),
        ({"kinds": None}, "kinds: expected one or several, got None"),
        ({"kinds": (3,)}, "kinds: expected names, got int"),
        ({"severities": (0,)}, "severities: expected 1, 2, 3, 4 or 5, got 0"),
        ({"severities": 2.0}, "severities: expected one or several, got 2.0"),
        ({"p": 1.5}, "p: expected a share from 0 to 1, got 1.5"),
        ({"p": "all"}, "p: expected a share from 0 to 1, got 'all'"),
        ({"parameters": "huge"}, "parameters: 'huge' is unknown"),
        ({"seed": 3}, "seed: RandomCorruption has no such option; it has parameters"),
    ],
)
def test_messages(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        RandomCorruption(**arguments)


def test_one_severity_of_numpy():
    assert RandomCorruption(severities=np.int64(3)).severities == (3,)


def test_a_sample_without_an_image_is_refused():
    with pytest.raises(ValueError, match="no image in the sample"):
        RandomCorruption()({"label": 3})
