"""URIE against its definition; what it trains and what it leaves alone."""

import copy
import math

import pytest
import torch
from torch.nn import functional

from reference_training.config import SHORT, Network, UEMOptions
from reference_training.data import load
from reference_training.data.batch import Batch
from reference_training.data.pairs import Pairs
from reference_training.methods import METHODS
from reference_training.networks.backbones import ARCHITECTURES
from reference_training.networks.enhancers import URIE
from reference_training.networks.resnet import ResNet
from reference_training.runtime.stop import Interrupted
from reference_training.training import loop
from reference_training.training.schedule import Schedule, stepwise
from ulfd_torch import FeatureTap


def make_step(seed=0):
    torch.manual_seed(seed)
    return METHODS["urie"].make_step(ResNet(Network(), 10), SHORT, UEMOptions())


def batch(clean=None):
    generator = torch.Generator().manual_seed(1)
    degraded = torch.randn(8, 3, 32, 32, generator=generator)
    return Batch(degraded if clean is None else clean, degraded, torch.arange(8))


def test_published_parameter_count():
    assert sum(weight.numel() for weight in URIE().parameters()) == 671_859


def standardised(x, axes):
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True) + 1e-5).sqrt()


def selective(weights, x):
    """A selective enhancement module in train mode, its softmax of two written as a sigmoid."""
    scale, shift = weights["batch.0.weight"], weights["batch.0.bias"]
    first = standardised(x, (0, 2, 3)) * scale[:, None, None] + shift[:, None, None]
    second = standardised(x, (2, 3))
    a, b = (
        functional.conv2d(torch.where(y > 0, y, 0.01 * y), weights[f"{name}.2.weight"], padding=1)
        for name, y in (("batch", first), ("instance", second))
    )
    count, channels, height, width = a.shape
    cells = (a + b).reshape(count, channels, 4, height // 4, 4, width // 4).mean((3, 5))
    hidden = (cells.reshape(count, -1) @ weights["squeeze.weight"].T).clamp(min=0)
    scores = hidden @ weights["excite.weight"].T + weights["excite.bias"]
    for_a, for_b = scores.reshape(count, 2, channels, 4, 4).unbind(1)
    share = torch.sigmoid(for_a - for_b)
    share = share.repeat_interleave(height // 4, 2).repeat_interleave(width // 4, 3)
    return share * a + (1 - share) * b


def doubling(size):
    """The matrix of linear interpolation from size to 2·size samples, ends on ends."""
    matrix = torch.zeros(2 * size, size, dtype=torch.float64)
    for row in range(2 * size):
        place = row * (size - 1) / (2 * size - 1)
        low = min(math.floor(place), size - 2)
        matrix[row, low], matrix[row, low + 1] = 1 - (place - low), place - low
    return matrix


def joined(skip, low):
    height, width = (doubling(size) for size in low.shape[-2:])
    return torch.cat([skip, height @ low @ width.T], 1)


def by_hand(weights, x):
    def part(prefix):
        return {
            name.removeprefix(f"{prefix}."): weight
            for name, weight in weights.items()
            if name.startswith(f"{prefix}.")
        }

    def halved(y):
        return y.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax((3, 5))

    full = functional.conv2d(x, weights["first.weight"], weights["first.bias"], padding=4)
    half = selective(part("down1"), halved(full))
    quarter = selective(part("down2"), halved(half))
    upper = selective(part("up1"), joined(half, quarter))
    last = selective(part("up2"), joined(full, upper))
    return x + functional.conv2d(last, weights["last.weight"], weights["last.bias"], padding=1)


def test_forward_by_hand():
    torch.manual_seed(0)
    urie = URIE().double()
    with torch.no_grad():
        for weight in urie.parameters():
            weight.add_(0.1 * torch.randn_like(weight))  # so that no scale is 1 and no shift 0
    x = torch.randn(3, 3, 32, 48, dtype=torch.float64)
    found = urie(x)
    torch.testing.assert_close(
        found, by_hand(dict(urie.named_parameters()), x), rtol=1e-9, atol=1e-9
    )
    assert (found - x).abs().mean() > 0.1


@pytest.mark.parametrize("size", [(32, 32), (33, 46), (8, 8)])
def test_images_keep_their_size(size):
    assert URIE()(torch.rand(2, 3, *size)).shape == (2, 3, *size)


def test_photographs_and_the_papers_backbone():
    with torch.device("meta"):
        model = ARCHITECTURES["resnet50"].make(1000)
        step = METHODS["urie"].make_step(model, SHORT, UEMOptions())
        images = torch.empty(2, 3, 224, 224)
        for layer, shape in (("deep", (2, 2048, 7, 7)), ("shallow", (2, 64, 112, 112))):
            name, channels, _ = step.model.tapped(layer)
            with FeatureTap(step.model, name) as tap:
                assert step.model(images).shape == (2, 1000)
                assert tap.take().shape == shape
            assert channels == shape[1]
        assert step(Batch(images, images, torch.zeros(2, dtype=torch.int64))).loss.shape == ()


def test_the_loss_is_that_of_the_frozen_classifier_on_the_enhanced_second_image():
    step = make_step()
    with torch.no_grad():  # statistics that differ from any batch's
        step.model.classifier.stem[1].running_mean.fill_(0.3)
    twin = copy.deepcopy(step.model.classifier).eval()
    pairs = batch(clean=torch.full((8, 3, 32, 32), math.nan))
    enhanced = copy.deepcopy(step.model.enhancer).train()(pairs.degraded)
    expected = -twin(enhanced).log_softmax(1)[torch.arange(8), pairs.labels].mean()
    torch.testing.assert_close(step.train()(pairs).loss, expected)


def test_only_the_enhancer_is_trained():
    step = make_step().train()
    assert not any(module.training for module in step.model.classifier.modules())
    before = copy.deepcopy(step.state_dict())
    optimizer = torch.optim.Adam(step.parameters(), lr=1e-3, weight_decay=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        step(batch()).loss.backward()
        optimizer.step()
    for name, weight in step.named_parameters():
        assert (weight.grad is not None) == name.startswith("model.enhancer.")
    for name, value in step.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("model.classifier."), name


def test_in_eval_mode_an_image_does_not_see_its_neighbours():
    step = make_step()
    images = batch().degraded
    step.train()(batch())  # moves the running averages
    model = step.eval().model
    with torch.no_grad():
        enhanced = model.enhancer(images)
        alone = torch.cat([model.enhancer(image[None]) for image in images])
        torch.testing.assert_close(enhanced, alone, rtol=1e-5, atol=1e-5)
        assert (enhanced - images).abs().mean() > 0.01
        assert torch.equal(model(images), model.classifier(enhanced))
        step.train()
        assert (model.enhancer(images) - enhanced).abs().mean() > 0.001


def test_one_of_sixteen_pairs_is_clean_and_the_others_are_what_all_methods_see():
    dataset = load("digits")
    options = {"batch_size": 160, "seed": 3, "frost": "procedural"}
    ours, usual = (
        list(Pairs(dataset, second=second, **options).batches(0, 8))
        for second in (METHODS["urie"].second, "corruption")
    )
    kept = 0
    for mine, theirs in zip(ours, usual, strict=True):
        assert torch.equal(mine.clean, theirs.clean)
        as_usual = (mine.degraded == theirs.degraded).flatten(1).all(1)
        clean = (mine.degraded == mine.clean).flatten(1).all(1)
        assert (as_usual | clean).all()
        kept += int((~as_usual).sum())
    expected = 8 * 160 / 16  # less the few that a corruption leaves as they are
    assert abs(kept - expected) < 4 * expected**0.5


class Counter:
    """Stands for the link to the parent process; asks for an end after some iterations."""

    def __init__(self, end_after=math.inf):
        self.count, self.end_after = 0, end_after
        self.stop = self

    def is_set(self):
        return self.count >= self.end_after

    def advance(self, iterations=1):
        self.count += iterations

    def skip(self, iterations):
        pass


def train(folder, link):
    step = make_step()
    pairs = Pairs(load("digits"), batch_size=8, seed=0, second="corruption", frost="procedural")
    schedule = Schedule(4, 1e-3, stepwise((0.5,)), weight_decay=1e-3)
    loop.TrainingLoop(step, pairs, schedule, folder=folder, checkpoint_every=10, link=link).train()
    return step.state_dict()


def test_stopped_it_continues_bit_by_bit(tmp_path):
    whole = train(tmp_path / "whole", Counter())
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", Counter(2))
    resumed = train(tmp_path / "parts", Counter())
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
