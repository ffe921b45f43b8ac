"""Datasets and the pairs drawn from them."""

import gzip
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_training.corruptions import SEEN, SEVERITIES, corrupt
from reference_training.data import DATASETS, fashion_mnist, load
from reference_training.data.images import balanced, fixed_order, held_out, training_subset
from reference_training.data.pairs import CHUNK, Pairs, normalised
from reference_training.runtime.errors import RunError
from scripts.make_fashion_mnist_subset import make_subset


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.mark.parametrize("name", ["fashion-mnist-subset", "digits"])
def test_embedded_datasets(name):
    dataset = load(name)
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        assert images.dtype == torch.uint8
        assert images.shape == (len(labels), 3, 32, 32)
        assert images.float().std() > 20  # pictures, not blanks
        assert set(labels.tolist()) == set(range(dataset.classes))
        assert (images[:, 0] == images[:, 1]).all()


def test_the_subset_is_balanced_and_known():
    dataset = load("fashion-mnist-subset")
    assert dataset.train_labels.bincount().tolist() == [800] * 10
    assert dataset.test_labels.bincount().tolist() == [200] * 10
    # Fashion-MNIST's first training image is an ankle boot, class 9
    assert dataset.train_labels[0] == 9
    assert dataset.sha256().startswith("7ab09f9c42")


def write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def originals(tmp_path):
    """Files in Fashion-MNIST's format, with 10 images of each class."""
    generator = np.random.default_rng(0)
    for part, name in fashion_mnist.FILES.items():
        if part.endswith("labels"):
            write_idx(tmp_path / name, np.tile(np.arange(10, dtype=np.uint8), 10))
        else:
            write_idx(tmp_path / name, generator.integers(0, 256, (100, 28, 28), dtype=np.uint8))
    return tmp_path


def test_the_original_files_are_read(originals):
    dataset = load("fashion-mnist", originals)
    assert dataset.train_images.shape == dataset.test_images.shape == (100, 3, 32, 32)
    raw = gzip.decompress((originals / fashion_mnist.FILES["test_images"]).read_bytes())[16:]
    first = np.frombuffer(raw, np.uint8).reshape(-1, 28, 28)[0]
    assert np.array_equal(dataset.test_images[0, 0, 2:30, 2:30].numpy(), first)
    assert dataset.test_images[0, 0, :2].sum() == 0


def test_the_subset_can_be_made_anew(originals, tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "SUBSET", tmp_path)
    monkeypatch.setattr("scripts.make_fashion_mnist_subset.SUBSET", tmp_path)
    for module in (fashion_mnist, "scripts.make_fashion_mnist_subset"):
        target = f"{module}.SUBSET_SIZES" if isinstance(module, str) else None
        if target:
            monkeypatch.setattr(target, {"train": 3, "test": 2})
        else:
            monkeypatch.setattr(module, "SUBSET_SIZES", {"train": 3, "test": 2})
    make_subset(originals)
    dataset = load("fashion-mnist-subset")
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (30, 20)
    whole = load("fashion-mnist", originals)
    assert torch.equal(dataset.train_images, whole.train_images[:30])
    (tmp_path / "images.xz").write_bytes(b"damaged")
    with pytest.raises(RunError, match="damaged"):
        load("fashion-mnist-subset")
    assert len(json.loads((tmp_path / "origin.json").read_text())["original_sha256"]) == 4


def test_bad_folders_and_files(originals, tmp_path):
    with pytest.raises(RunError, match=r"unknown dataset 'mnist'.*digits"):
        load("mnist")
    with pytest.raises(RunError, match="does not exist"):
        load("cifar10", tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"(?s)CIFAR-10 is not in.*download=True"):
        load("cifar10", tmp_path)
    path = originals / fashion_mnist.FILES["train_images"]
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(RunError, match="no readable IDX file"):
        load("fashion-mnist", originals)
    path.unlink()
    with pytest.raises(RunError, match=r"are in none of.*--data-root"):
        load("fashion-mnist", originals)


def test_cifar10_files_that_are_not_the_published_ones_are_never_unpickled(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{n}" for n in range(1, 6))):
        (folder / name).write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(RunError, match="damaged"):
        load("cifar10", tmp_path)
    assert "cifar10" in DATASETS


def pairs(dataset, **options):
    defaults = {"batch_size": 32, "seed": 3, "second": "corruption", "frost": "procedural"}
    return Pairs(dataset, **(defaults | options))


def test_a_batch_depends_on_seed_and_iteration_only(digits):
    whole = list(pairs(digits).batches(0, CHUNK + 5))
    later = list(pairs(digits).batches(CHUNK + 2, CHUNK + 5))
    for a, b in zip(whole[CHUNK + 2 :], later, strict=True):
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x, y)
    other = next(pairs(digits, seed=4).batches(0, 1))
    assert not torch.equal(other.labels, whole[0].labels)


def test_second_images_are_made_once_for_those_who_share_them(digits, tmp_path, monkeypatch):
    digits = replace(digits, flips=True)
    options = {"batch_size": 4, "seed": 0, "second": "corruption", "frost": "procedural"}
    wanted = list(Pairs(digits, **options).batches(0, 3))
    others = [
        Pairs(digits, **options | changes, kept=tmp_path)
        for changes in ({"second": "clean"}, {"batch_size": 5}, {"second_views": 2}, {})
    ] + [Pairs(training_subset(digits, 100), **options, kept=tmp_path)]
    for pairs in others:
        list(pairs.batches(0, 3))
    assert len([*tmp_path.iterdir()]) == 4  # the clean ones are not kept
    monkeypatch.setattr("reference_training.data.pairs.second_image", None)
    again = Pairs(digits, **options, kept=tmp_path).batches(0, 3)
    for batch, same in zip(wanted, again, strict=True):
        assert all(map(torch.equal, batch, same))


def test_an_epoch_shows_every_image_once(digits):
    total = len(digits.train_labels)
    source = pairs(digits, batch_size=total)
    first, second = source.samples(0, 1), source.samples(1, 2)
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(total))
    assert not torch.equal(first, second)
    across = pairs(digits, batch_size=100).samples(12, 13)  # the epoch ends within this batch
    assert torch.equal(across[:97], first[1200:1297])
    assert torch.equal(across[97:], second[:3])


def test_each_pair_is_one_image_and_its_degradation(digits):
    """Draws every corruption; a degraded image is what some (type, severity) makes of the clean."""
    source = pairs(digits, batch_size=64)
    seen = []

    def spy(images, names, severities, **options):
        seen.extend(zip(names, severities, strict=True))
        return corrupt(images, names, severities, **options)

    import reference_training.data.second_images as module

    original, module.corrupt = module.corrupt, spy
    try:
        batches = list(source.batches(0, 24))
    finally:
        module.corrupt = original
    assert {name for name, _ in seen} == set(SEEN)
    assert {severity for _, severity in seen} == set(SEVERITIES)
    counts = torch.tensor([sum(name == kind for name, _ in seen) for kind in SEEN]).float()
    expected = len(seen) / len(SEEN)
    assert ((counts - expected).abs() < 5 * expected**0.5).all()
    same = [(batch.clean == batch.degraded).flatten(1).all(1).float().mean() for batch in batches]
    assert torch.stack(same).mean() < 0.05


def test_flips_are_shared_by_the_pair():
    dataset = load("fashion-mnist-subset")
    batch = next(pairs(dataset, second="clean", batch_size=256).batches(0, 1))
    samples = pairs(dataset, batch_size=256).samples(0, 1)
    plain = normalised(dataset.train_images[samples])
    as_is = (batch.clean == plain).flatten(1).all(1)
    mirrored = (batch.clean == plain.flip(-1)).flatten(1).all(1)
    assert (as_is | mirrored).all()
    assert 80 < int((as_is & ~mirrored).sum()) < 176  # half of 256, within six deviations
    assert torch.equal(batch.clean, batch.degraded)


def test_a_training_subset_has_the_first_of_each_class(digits):
    part = training_subset(digits, 50)
    assert part.train_labels.bincount().tolist() == [5] * 10
    assert torch.equal(part.test_images, digits.test_images)
    where = [int((digits.train_labels == label).nonzero()[0]) for label in range(10)]
    assert all(
        (part.train_images == digits.train_images[at]).flatten(1).all(1).any() for at in where
    )
    assert training_subset(digits, None) is digits
    assert training_subset(digits, 10**6) is digits


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.data())
def test_a_balanced_choice_has_the_first_images_of_each_class(values, data):
    labels = torch.tensor(values)
    count = data.draw(st.integers(1, len(values)))
    chosen = balanced(labels, count)
    assert len(set(chosen.tolist())) == count
    assert chosen.tolist() == sorted(chosen.tolist())
    got = labels[chosen].bincount(minlength=7).tolist()
    most = max(got)
    for label in range(7):
        there = (labels == label).nonzero()[:, 0].tolist()
        assert [at for at in chosen.tolist() if labels[at] == label] == there[: got[label]]
        assert got[label] >= min(most - 1, len(there))  # as many of each as there are


def test_a_choice_of_fewer_images_than_classes_is_spread_over_them():
    labels = torch.arange(1000).repeat_interleave(50)
    assert labels[balanced(labels, 5000)].bincount().tolist() == [5] * 1000
    assert labels[balanced(labels, 500)].tolist() == list(range(1, 1000, 2))
    more = labels[balanced(labels, 1500)].bincount()
    assert more.tolist() == [1, 2] * 500
    assert sorted(fixed_order(100).tolist()) == list(range(100))
    assert fixed_order(100).tolist() == fixed_order(100).tolist() != list(range(100))


def test_what_is_held_out_is_not_trained_on(digits):
    """Tagged by a pixel that is outside every digit."""
    tagged = digits.train_images.clone()
    numbers = torch.arange(len(tagged))
    tagged[:, 0, 0, 0], tagged[:, 0, 0, 1] = (numbers // 256).byte(), (numbers % 256).byte()
    part = held_out(replace(digits, train_images=tagged), 100)

    def tags(images):
        return set((images[:, 0, 0, 0].int() * 256 + images[:, 0, 0, 1].int()).tolist())

    held, kept = tags(part.test_images), tags(part.train_images)
    assert (len(held), len(kept)) == (100, len(tagged) - 100)
    assert held | kept == set(numbers.tolist())
    assert part.test_labels.bincount().tolist() == [10] * 10
    assert torch.equal(part.test_labels, digits.train_labels[sorted(held)])
    assert held_out(digits, 0) is digits
