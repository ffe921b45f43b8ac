"""Test-time adaptations against closed forms in float64, by hand in NumPy."""

import copy
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn
from torch.nn import functional

from reference_training.config import Network
from reference_training.data import load
from reference_training.evaluation import trained
from reference_training.evaluation.adaptation import (
    ADAPTATIONS,
    LEARNING_RATE,
    generalised_cross_entropy,
)
from reference_training.evaluation.trained import Trained
from reference_training.methods.trainings import canonical, label, network_of, training
from reference_training.networks.resnet import ResNet
from reference_training.runtime.errors import RunError

EPS = 1e-5
ADAPTING = sorted(set(ADAPTATIONS) - {"none"})


class Net(nn.Module):
    """Batch normalisation, pooling and a linear layer: small enough to be computed by hand."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, eps=EPS)
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        return self.fc(self.norm(x).mean((2, 3)))


def net(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    model = Net().double().eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.3)
        model.fc.weight.sub_(0.8).mul_(scale)
    return model


def batches(*sizes):
    generator = torch.Generator().manual_seed(1)
    shape = (3, 5, 7)
    return [torch.randn(n, *shape, generator=generator).double() * 2 + 1 for n in sizes]


def array(tensor):
    return tensor.detach().numpy()


def pooled(model, x, source_samples):
    """The normalised features before scale and shift, averaged over the pixels: (B, C)."""
    share = len(x) / (source_samples + len(x))
    mean = (1 - share) * array(model.norm.running_mean) + share * x.mean((0, 2, 3))
    var = (1 - share) * array(model.norm.running_var) + share * x.var((0, 2, 3))
    return ((x - mean[:, None, None]) / np.sqrt(var + EPS)[:, None, None]).mean((2, 3))


@pytest.mark.parametrize(("name", "source_samples"), [("bn", 0), ("bn_prior", 16)])
def test_bn_is_its_closed_form(name, source_samples):
    model, given = net(), batches(6, 9, 1)
    weight, bias = array(model.fc.weight), array(model.fc.bias)
    scale, shift = array(model.norm.weight), array(model.norm.bias)
    found = list(ADAPTATIONS[name].predict(model, iter(given)))
    assert len(found) == 3
    for images, logits in zip(given, found, strict=True):
        features = pooled(model, array(images), source_samples)
        expected = (features * scale + shift) @ weight.T + bias
        np.testing.assert_allclose(array(logits), expected, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(model(images), logits, atol=1e-2)


def test_bn_is_torchs_training_mode_on_a_real_network():
    torch.manual_seed(0)
    model = ResNet(Network(), 10).eval()
    images = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 3 + 1
    twin = copy.deepcopy(model).train()
    (found,) = ADAPTATIONS["bn"].predict(model, [images])
    torch.testing.assert_close(found, twin(images).detach(), rtol=1e-4, atol=1e-5)
    (mixed,) = ADAPTATIONS["bn_prior"].predict(model, [images])
    torch.testing.assert_close(model(images), model(images))
    apart = [(mixed - end).abs().max() for end in (found, model(images))]
    assert min(apart) > 1e-3


def test_the_loss_lies_between_cross_entropy_and_the_mean_error():
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(8, 5, generator=generator) * 3).double().requires_grad_()
    labels = torch.arange(8) % 5
    p = softmax(array(logits), 1)
    chosen = p[np.arange(8), labels]
    loss = generalised_cross_entropy(logits, labels)
    assert math.isclose(loss.item(), ((1 - chosen**0.8) / 0.8).mean(), rel_tol=1e-12)
    assert math.isclose(
        generalised_cross_entropy(logits, labels, 1.0).item(), (1 - chosen).mean(), rel_tol=1e-12
    )
    assert math.isclose(
        generalised_cross_entropy(logits, labels, 1e-9).item(), -np.log(chosen).mean(), rel_tol=1e-6
    )
    loss.backward()
    expected = chosen[:, None] ** 0.8 * (p - np.eye(5)[labels]) / 8
    np.testing.assert_allclose(logits.grad, expected, rtol=1e-10, atol=1e-14)
    sure = torch.tensor([[-2000.0, 0.0]], requires_grad=True)  # p_y = 0
    generalised_cross_entropy(sure, torch.tensor([0])).backward()
    assert sure.grad.isfinite().all()


def test_rpl_is_its_closed_form():
    """Logits before each step, which moves scale and shift by the loss's gradient."""
    model, given = net(scale=20.0), batches(6, 9, 4)
    weight, bias = array(model.fc.weight), array(model.fc.bias)
    scale, shift = array(model.norm.weight).copy(), array(model.norm.bias).copy()
    begin = scale.copy()
    for images, logits in zip(given, ADAPTATIONS["rpl"].predict(model, given), strict=True):
        features = pooled(model, array(images), 0)
        expected = (features * scale + shift) @ weight.T + bias
        np.testing.assert_allclose(array(logits), expected, rtol=1e-12, atol=1e-12)
        p = softmax(expected, 1)
        chosen = expected.argmax(1)
        most = p[np.arange(len(p)), chosen][:, None]
        gradient = most**0.8 * (p - np.eye(4)[chosen]) / len(p) @ weight
        scale -= LEARNING_RATE * (gradient * features).sum(0)
        shift -= LEARNING_RATE * gradient.sum(0)
    assert np.abs(scale - begin).max() > 1e-6  # far above the tolerance: the steps were seen


def test_five_epochs_of_rpl_are_five_runs_over_the_same_batches():
    model, given = net(scale=20.0), batches(6, 9)
    once = list(ADAPTATIONS["rpl"].predict(model, given * 5))
    found = list(ADAPTATIONS["rpl5"].predict(model, given))
    assert len(found) == 2
    for last, expected in zip(found, once[-2:], strict=True):
        torch.testing.assert_close(last, expected, rtol=0, atol=0)
    assert not torch.allclose(found[0], once[0], rtol=0, atol=1e-9)


class Watched(ResNet):
    """Tells which network computes: the original or its copy."""

    seen: ClassVar[list[nn.Module]] = []

    def forward(self, x):
        self.seen.append(self)
        return super().forward(x)


def test_rpl_moves_nothing_but_scales_and_shifts():
    torch.manual_seed(0)
    model = Watched(Network(), 10).eval()
    list(ADAPTATIONS["rpl"].predict(model, torch.randn(3, 8, 3, 32, 32)))
    adapted = Watched.seen[-1]
    assert adapted is not model
    norms = {
        f"{name}.{part}"
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for part in ("weight", "bias")
    }
    after = dict(adapted.named_parameters())
    moved = {n for n, weight in model.named_parameters() if not torch.equal(weight, after[n])}
    assert moved == norms


@pytest.mark.parametrize("name", ADAPTING)
def test_the_network_comes_back_as_it_was(name):
    torch.manual_seed(0)
    model = ResNet(Network(), 10).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = list(torch.randn(3, 8, 3, 32, 32))
    plain = model(images[0])
    predictions = ADAPTATIONS[name].predict(model, images)
    first = next(predictions)
    assert torch.equal(model(images[0]), plain)  # in the middle of it too
    next(predictions)
    predictions.close()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module.training or module._forward_pre_hooks for module in model.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert not first.requires_grad
    with torch.no_grad():  # whatever the caller's mode
        again = list(ADAPTATIONS[name].predict(model, images))
    assert torch.equal(again[0], first)
    with pytest.raises(RunError, match="no batch normalisation"):
        next(ADAPTATIONS[name].predict(nn.Flatten(), images))


def recognising(images, labels):
    """A network after a little training."""
    torch.manual_seed(0)
    model = ResNet(Network(), 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(12):
        optimizer.zero_grad()
        functional.cross_entropy(model(images.float() / 127.5 - 1), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize("name", ADAPTING)
def test_a_run_evaluates_adapted_networks(name):
    assert network_of(f"vanilla+{name}") == (training("vanilla"), ADAPTATIONS[name])
    assert canonical(f"vanilla+{name}") == f"vanilla+{name}"
    assert label(f"vanilla+{name}").endswith(f" + {ADAPTATIONS[name].label}")
    dataset = load("digits")
    images, labels = trained.test_images(dataset, 200)
    model = recognising(dataset.train_images[:128], dataset.train_labels[:128])
    first = images[:50]
    plain = trained.measure(Trained("vanilla/0", model), images, labels, clean=first)
    adapted = Trained("vanilla/0", model, adaptation=ADAPTATIONS[name])
    found = trained.measure(adapted, images, labels, clean=first)
    assert plain.keys() - found.keys() == {"auroc_max_softmax"}
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    shuffled = (images[order].float() / 127.5 - 1).split(ADAPTATIONS[name].batch)
    logits = torch.cat(list(ADAPTATIONS[name].predict(model, shuffled)))
    right = (logits.argmax(1) == labels[order]).sum().item()
    assert found["top1"] == right / 200
    assert right > 40  # of 200 of ten classes


def test_the_softmax_detects_degraded_images():
    """Of the images whose clean version is known: the chance that the degraded one is less sure."""
    dataset = load("digits")
    images, labels = trained.test_images(dataset, 100)
    model = recognising(dataset.train_images[:128], dataset.train_labels[:128])
    noisy = trained.degraded(images, "gaussian_noise", 5, "procedural")

    def found(shown):
        network = Trained("vanilla/0", model)
        return trained.measure(network, shown, labels, clean=images[:40])["auroc_max_softmax"]

    with torch.no_grad():
        sure = [
            model(each[:40].float() / 127.5 - 1).double().softmax(1).amax(1)
            for each in (images, noisy)
        ]
    wins = (sure[1][:, None] < sure[0]).double() + (sure[1][:, None] == sure[0]).double() / 2
    assert found(noisy) == pytest.approx(wins.mean().item(), abs=2e-3)  # rounding moves few pairs
    assert abs(found(noisy) - 0.5) > 0.02  # what a flipped sign, or chance, would not give
    assert found(images) == pytest.approx(0.5)
