"""Which sets and images are evaluated, and the images that are corrupted on the fly."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from reference_training.corruptions import CORRUPTIONS, SEEN, UNSEEN, corrupt
from reference_training.corruptions.checks import position_seeds
from reference_training.data import load
from reference_training.data.class_folders import ClassFolders
from reference_training.data.pairs import normalised
from reference_training.data.samples import InMemory
from reference_training.evaluation import CorruptionOptions, OnTheFly, sets, trained
from reference_training.evaluation.adaptation import ADAPTATIONS
from reference_training.evaluation.loop import Batches
from reference_training.evaluation.on_the_fly import stored_as_jpeg
from reference_training.evaluation.sets import select_corruptions
from reference_training.networks.preprocessing import Preprocessing
from reference_training.runtime.errors import RunError
from tests.reference_training.evaluation.material import photographs, tiny

PLAIN = CorruptionOptions(frost="procedural")


def test_a_run_evaluates_clean_images_and_95_sets_in_this_order():
    assert sets.SETS[0] == ("clean", 0)
    assert sets.SETS[1:] == tuple((name, level) for name in CORRUPTIONS for level in range(1, 6))


def test_names_and_groups():
    assert select_corruptions(["all"]) == CORRUPTIONS
    assert select_corruptions(["unseen", "fog"]) == ("fog", *UNSEEN)
    assert select_corruptions(["seen"]) == SEEN
    with pytest.raises(RunError, match=r"'gausian_noise'; did you mean 'gaussian_noise'"):
        select_corruptions(["gausian_noise"])
    with pytest.raises(RunError, match="no corruption named"):
        select_corruptions([])


def test_seeds_do_not_meet():
    positions = torch.arange(50_000)
    assert position_seeds(0, positions).tolist() == positions.tolist()
    one, other = (set(position_seeds(seed, positions).tolist()) for seed in (1, 2))
    assert not one & other
    assert position_seeds(2**31 - 1, positions).min() > 0
    with pytest.raises(RunError, match="--seed is -1"):
        OnTheFly(InMemory(load("digits")), seed=-1)


@pytest.mark.parametrize("size", [(224, 224), (32, 32)])
def test_images_come_back_as_pillow_stores_them(size):
    """ImageNet-C's generator: Pillow, quality 85, optimised."""
    pictures = photographs(4, size)
    images = torch.stack([torch.from_numpy(np.array(p)).movedim(-1, 0) for p in pictures])
    found = stored_as_jpeg(images)
    for picture, image in zip(pictures, found, strict=True):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85, optimize=True)
        assert np.array_equal(image.movedim(0, -1).numpy(), np.asarray(Image.open(file)))
    assert (found != images).float().mean() > 0.5


def test_a_degraded_image_depends_on_its_seed_position_and_set_only():
    data = OnTheFly(InMemory(load("digits")), PLAIN, seed=5)
    samples = data.samples(("gaussian_noise", 3))
    positions = torch.tensor([4, 9, 100])
    images = torch.stack([samples.images[int(at)] for at in positions])
    together = samples.degrade(images, positions)
    alone = samples.degrade(images[1:2], positions[1:2])
    assert torch.equal(together[1], alone[0])
    seeds = positions + (5 << 32)
    direct = corrupt(images, "gaussian_noise", 3, seeds=seeds, frost="procedural")
    assert torch.equal(together, direct)
    other = OnTheFly(data.clean_images, PLAIN, seed=6).samples(("gaussian_noise", 3))
    assert not torch.equal(together, other.degrade(images, positions))


def test_seed_0_is_what_a_run_evaluates_with():
    digits = load("digits")
    samples = OnTheFly(InMemory(digits), PLAIN).samples(("fog", 2))
    whole = trained.degraded(digits.test_images[:30], "fog", 2, "procedural")
    assert torch.equal(samples.degrade(samples.images[:30], torch.arange(30)), whole)


def test_jpeg_follows_the_corruption_and_spares_clean_images():
    digits = load("digits")
    data = OnTheFly(InMemory(digits), PLAIN, jpeg85=True)
    positions = torch.arange(6)
    images = digits.test_images[:6]
    assert torch.equal(data.samples(("clean", 0)).degrade(images, positions), images)
    without = OnTheFly(InMemory(digits), PLAIN).samples(("fog", 1)).degrade(images, positions)
    stored = data.samples(("fog", 1)).degrade(images, positions)
    assert torch.equal(stored, stored_as_jpeg(without))
    assert not torch.equal(stored, without)


def test_labels_say_what_the_images_are():
    images = InMemory(load("digits"))
    assert OnTheFly(images, PLAIN).name == "digits, corrupted on the fly, generated frost"
    assert "JPEG 85" in OnTheFly(images, PLAIN, jpeg85=True).name


def test_images_too_small_for_a_corruption_are_refused_at_once(tmp_path):
    clean_folder = tmp_path / "val"
    for name in "abc":
        (clean_folder / name).mkdir(parents=True)
        Image.new("RGB", (50, 1)).save(clean_folder / name / "line.png")
    data = OnTheFly(ClassFolders(clean_folder, 3, "as_is"), PLAIN)
    with pytest.raises(RunError, match="1x50 pixels are too few for"):
        data.check([("clean", 0), ("pixelate", 1)])


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_batches_read_the_same_images(clean_folder, workers):
    images = ClassFolders(clean_folder, 3).clean("clean_squash224").images
    positions = torch.tensor([0, 2, 3, 5])
    seen = []

    def prepare(batch, rows):
        seen.extend(rows.tolist())
        return batch

    read = list(Batches(images, positions, 3, prepare, workers))
    assert seen == positions.tolist()
    expected = torch.stack([images[int(at)] for at in positions])
    assert torch.equal(torch.cat(read), expected)


def test_preprocessing_is_the_formula():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = Preprocessing(mean, std)(images)
    expected = (images.numpy() / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    # float32: three roundings of values below 3
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=3 * 3 * 2**-24)
    assert Preprocessing(mean, std, 16)(images).shape == (2, 3, 16, 16)
    assert torch.equal(Preprocessing(mean, std, 8)(images), found)


class Labels:
    """Images with labels, by their files."""

    files = tuple(f"{name}/{at}.png" for at, name in enumerate("aabbcc"))
    labels = torch.tensor([0, 0, 1, 1, 2, 2])


def listed(path, *lines, files=Labels.files):
    path.write_text("\n".join(lines))
    data = Labels()
    data.files = files
    return sets.choose(data, image_list=path)


def test_a_list_names_images_in_its_order(tmp_path):
    path = tmp_path / "five.txt"
    positions, facts = listed(path, "c/4.png", "", "a/1.png ")
    assert positions.tolist() == [4, 1]
    assert (facts["subset"], facts["image_list"]) == (2, "five.txt")
    assert listed(path, "4.png", "1.png")[0].tolist() == [4, 1]  # by their names alone
    bare = [f"{at}.png" for at in range(6)]
    assert listed(path, "c/4.png", "a/1.png", files=bare)[0].tolist() == [4, 1]
    other = listed(path, "a/1.png", "c/4.png")[1]
    assert other["image_list_sha256"] != facts["image_list_sha256"]
    for lines, message in (
        (["a/0.png", "a/4.png"], r"names a/4.png, not among the images"),  # of class c
        (["a/0.png", "0.png"], "names an image twice"),
        ([], "names none"),
    ):
        with pytest.raises(RunError, match=message):
            listed(path, *lines)
    with pytest.raises(RunError, match="paths of some of the 0 image files"):
        listed(path, "a/0.png", files=())
    with pytest.raises(RunError, match="give one of them"):
        sets.choose(Labels(), subset=2, image_list=path)


def test_few_images_are_drawn_at_random_the_same_everywhere():
    """500 of 50,000, whose mean position is 24,999.5 with a standard error of 14,434 / √500."""
    draws = [sets.drawn(50_000, sets.few(50_000), draw) for draw in range(sets.DRAWS)]
    assert [len(set(draw.tolist())) for draw in draws] == [500] * 5
    assert all(abs(draw.double().mean() - 24_999.5) < 4 * 14_434 / 500**0.5 for draw in draws)
    assert (
        draws[0][:3].tolist()
        == torch.randperm(50_000, generator=torch.Generator().manual_seed(0))[:3].tolist()
    )
    assert len({tuple(draw.tolist()) for draw in draws}) == 5
    assert (sets.few(400), sets.few(3)) == (40, 1)
    positions, facts = sets.choose(Labels(), subset=2, draw=3)
    assert torch.equal(positions, sets.drawn(6, 2, 3))
    assert facts == {"subset": 2, "draw": 3}


@pytest.mark.parametrize("adaptation", ["none", "bn"])
def test_each_draw_of_few_images_is_measured(adaptation):
    levels = torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    labels = torch.arange(100) % 2
    model = tiny(2).eval()
    network = trained.Trained("x/0", model, adaptation=ADAPTATIONS[adaptation])
    found = trained.measure(network, levels, labels, clean=levels)["top1_draws"]
    kind = network.adaptation
    for draw, value in enumerate(found):
        rows = sets.drawn(100, 10, draw)
        images = normalised(levels[rows])
        (logits,) = kind.predict(model, [images])
        assert value == int((logits.argmax(1) == labels[rows]).sum()) / 10
    assert len(found) == sets.DRAWS
