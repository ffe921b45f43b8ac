"""KD-VID against its formula, written with the variance itself instead of its logarithm."""

import copy

import torch
from torch.nn import functional

from reference_training.config import SHORT, Network, UEMOptions
from reference_training.data.batch import Batch
from reference_training.methods import METHODS
from reference_training.networks.backbones import ARCHITECTURES
from reference_training.networks.resnet import ResNet


def new_step(student_differs=True):
    torch.manual_seed(0)
    network = ResNet(Network(), 10).double()
    step = METHODS["kd_vid"].make_step(network, SHORT, UEMOptions()).double()
    if student_differs:
        with torch.no_grad():
            for weight in [*step.model.parameters(), *step.regressors.parameters()]:
                weight.add_(0.3 * torch.randn_like(weight))
    return step.train()


def batch():
    clean, degraded = torch.randn(2, 4, 3, 32, 32, dtype=torch.float64)
    return Batch(clean, degraded, torch.arange(4))


def stages(network, images):
    """The outputs of the three stages, and the logits."""
    outputs = [network.stem(images)]
    for stage in (network.layer1, network.layer2, network.layer3):
        outputs.append(stage(outputs[-1]))
    return outputs[1:], network.fc(outputs[-1].mean((2, 3)))


def test_the_loss_and_its_gradients_are_those_of_the_formula():
    step, pairs = new_step(), batch()
    twin = copy.deepcopy(step)
    result = step(pairs)
    result.loss.backward()

    with torch.no_grad():
        targets, _ = stages(twin.teacher.network, pairs.clean)
    features, logits = stages(twin.model, pairs.degraded)
    expected = functional.cross_entropy(logits, pairs.labels)
    for feature, target, regressor in zip(features, targets, twin.regressors, strict=True):
        mean = feature
        for index, layer in enumerate(regressor.mean[::2]):
            assert layer.bias is None
            mean = torch.einsum("bchw,dc->bdhw", mean, layer.weight[:, :, 0, 0])
            mean = mean.clamp_min(0) if index < 2 else mean
        variance = torch.log(1 + regressor.raw_variance.exp()) + 1e-5
        expected = expected + (0.5 * ((mean - target) ** 2 / variance + variance.log())).mean()
    expected.backward()
    torch.testing.assert_close(result.loss, expected, rtol=1e-12, atol=0)
    theirs = dict(twin.named_parameters())
    for name, weight in step.named_parameters():
        assert (weight.grad is None) == name.startswith("teacher.")
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, theirs[name].grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(step.model.state_dict(), twin.model.state_dict())


def test_the_variance_starts_at_five_and_is_best_at_the_mean_square():
    step = new_step(student_differs=False)
    for regressor in step.regressors:
        variance = functional.softplus(regressor.raw_variance) + 1e-5
        # float32 once, whose rounding the inverse of softplus hardly enlarges here
        torch.testing.assert_close(variance, torch.full_like(variance, 5.0), rtol=1e-6, atol=0)
    regressor = step.regressors[0]
    student, teacher = torch.randn(2, 8, 16, 5, 5, dtype=torch.float64)
    square = (regressor.mean(student) - teacher).square().mean((0, 2, 3), keepdim=True)
    for factor, sign in ((0.5, -1), (1.0, 0), (2.0, 1)):
        with torch.no_grad():
            regressor.raw_variance.copy_(torch.expm1(factor * square - 1e-5).log())
        mean, log_variance = regressor(student)
        (gradient,) = torch.autograd.grad(
            step.loss(mean, teacher, log_variance), regressor.raw_variance
        )
        if sign == 0:
            assert gradient.abs().max() < 1e-15
        else:
            assert (gradient.sign() == sign).all()


def test_the_teacher_is_the_vanilla_network_on_the_clean_image_for_ever():
    step, pairs = new_step(student_differs=False), batch()
    vanilla = copy.deepcopy(step.model).eval()
    optimizer = torch.optim.Adam(step.parameters(), lr=1e-2)
    pairs.clean.requires_grad_()
    for _ in range(3):
        optimizer.zero_grad()
        step(pairs).loss.backward()
        optimizer.step()
    assert pairs.clean.grad is None
    assert not any(module.training for module in step.teacher.modules())
    assert step.model.training
    for feature, expected in zip(
        step.teacher(pairs.clean), stages(vanilla, pairs.clean)[0], strict=True
    ):
        assert torch.equal(feature, expected)


def test_at_full_scale_all_four_stages_are_taught():
    with torch.device("meta"):
        step = METHODS["kd_vid"].make_step(
            ARCHITECTURES["resnet50"].make(1000), SHORT, UEMOptions()
        )
        images = torch.rand(2, 3, 224, 224)
        loss = step(Batch(images, images, torch.zeros(2, dtype=torch.int64))).loss
        shapes = [tuple(feature.shape) for feature in step.teacher(images)]
    assert loss.shape == ()
    assert shapes == [(2, 256, 56, 56), (2, 512, 28, 28), (2, 1024, 14, 14), (2, 2048, 7, 7)]
    channels = [regressor.raw_variance.numel() for regressor in step.regressors]
    assert channels == [256, 512, 1024, 2048]
    trained = sum(w.numel() for w in step.regressors.parameters())
    assert trained == sum(3 * c * c + c for c in channels)
