"""The DDP-style baseline: the FDM against its formula, and that nothing but the FDM is trained."""

import copy

import torch
from torch.nn import functional

from reference_training.config import SHORT, Network, UEMOptions
from reference_training.data.batch import Batch
from reference_training.methods import METHODS
from reference_training.networks.backbones import ARCHITECTURES
from reference_training.networks.resnet import ResNet


def new_step(trained=True):
    torch.manual_seed(0)
    step = METHODS["ddp"].make_step(ResNet(Network(), 10), SHORT, UEMOptions()).double().train()
    if trained:
        with torch.no_grad():
            for weight in step.model.inserted.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
    return step


def batch():
    clean = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    return Batch(clean, 0.3 * clean + 0.5, torch.arange(8))


def de_drifted(weights, x):
    """Three blocks: x + the 1×1 of the concatenated ReLUs of convolutions dilated 1, 2 and 4."""
    for block in range(3):
        branches = []
        for index, dilation in enumerate((1, 2, 4)):
            name = f"{block}.branches.{index}"
            kernel = torch.zeros(16, 16, 2 * dilation + 1, 2 * dilation + 1, dtype=x.dtype)
            kernel[..., ::dilation, ::dilation] = weights[f"{name}.weight"]  # holes made explicit
            branches.append(
                functional.conv2d(x, kernel, weights[f"{name}.bias"], padding=dilation).clamp_min(0)
            )
        merge = weights[f"{block}.merge.weight"][:, :, 0, 0]
        merged = torch.einsum("bchw,dc->bdhw", torch.cat(branches, 1), merge)
        x = x + merged + weights[f"{block}.merge.bias"][:, None, None]
    return x


def test_the_loss_and_its_gradients_are_those_of_the_formula():
    step, pairs = new_step(), batch()
    result = step(pairs)
    result.loss.backward()
    stem = copy.deepcopy(step.model.network.stem).eval()
    fdm = step.model.inserted
    weights = {name: w.detach().clone().requires_grad_() for name, w in fdm.named_parameters()}
    difference = de_drifted(weights, stem(pairs.degraded)) - stem(pairs.clean)
    expected = difference.square().mean()
    expected.backward()
    torch.testing.assert_close(result.loss, expected, rtol=1e-12, atol=0)
    for name, weight in fdm.named_parameters():
        torch.testing.assert_close(weight.grad, weights[name].grad, rtol=1e-9, atol=1e-12)
    drift = (stem(pairs.degraded) - stem(pairs.clean)).square().mean()
    torch.testing.assert_close(result.logs["drift"], drift)


def test_before_training_it_is_the_vanilla_network():
    step, pairs = new_step(trained=False), batch()
    network = copy.deepcopy(step.model.network)
    assert torch.equal(step.eval().model(pairs.clean), network.eval()(pairs.clean))
    result = step(pairs)
    assert torch.equal(result.loss, result.logs["drift"])


def test_the_network_and_the_labels_have_no_part_in_the_training():
    step, pairs = new_step(trained=False), batch()
    before = copy.deepcopy(step.model.network.state_dict())
    first = step(pairs)
    assert torch.equal(step(pairs._replace(labels=None)).loss, first.loss)
    optimizer = torch.optim.Adam(step.parameters(), lr=1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        step.train()
        result = step(pairs)
        result.loss.backward()
        optimizer.step()
    assert result.loss < 0.8 * first.loss
    for name, value in step.model.network.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(weight.grad is None for weight in step.model.network.parameters())
    assert not any(module.training for module in step.model.network.modules())
    assert torch.equal(step(pairs).loss, step.eval()(pairs).loss)


def test_the_evaluated_network_classifies_the_mapped_feature():
    step, pairs = new_step(), batch()
    model = step.eval().model
    network = model.network
    before = network.stem(pairs.degraded)  # Figure 2 shows both
    after = model.inserted(before)
    assert torch.equal(model.before(pairs.degraded), before)
    x = network.layer3(network.layer2(network.layer1(after)))
    expected = network.fc(x.mean((2, 3)))
    torch.testing.assert_close(model(pairs.degraded), expected)
    assert (expected - network(pairs.degraded)).abs().max() > 1e-3


def test_at_full_scale_the_shallow_feature_has_half_the_resolution():
    with torch.device("meta"):
        step = METHODS["ddp"].make_step(ARCHITECTURES["resnet50"].make(1000), SHORT, UEMOptions())
        images = torch.rand(2, 3, 224, 224)
        loss = step(Batch(images, images, torch.zeros(2, dtype=torch.int64))).loss
        assert step.model.before(images).shape == (2, 64, 112, 112)
        assert step.model(images).shape == (2, 1000)
    assert loss.shape == ()
    trained = sum(w.numel() for w in step.parameters() if w.requires_grad)
    assert trained == 3 * (3 * (64 * 64 * 9 + 64) + 192 * 64 + 64)
