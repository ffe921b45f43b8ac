"""ULFD with the reconstructing UEM: its loss by hand, its one path at test time, its σ."""

import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save
from torch.nn import functional

from reference_training.config import SHORT, Network, Recipe, UEMOptions
from reference_training.data.batch import Batch
from reference_training.data.pairs import normalised
from reference_training.evaluation.calibration import calibration
from reference_training.evaluation.trained import Trained, look
from reference_training.experiments import small
from reference_training.methods import METHODS
from reference_training.networks.backbones import ARCHITECTURES
from reference_training.networks.resnet import ResNet
from reference_training.presets import PRESETS
from reference_training.runtime.errors import RunError
from ulfd import UEMSpec


def new_step(recipe=SHORT, **options):
    torch.manual_seed(0)
    return (
        METHODS["ulfd_reconstruct"]
        .make_step(ResNet(Network(), 10), recipe, UEMOptions(**options))
        .train()
    )


def batch():
    clean, degraded = torch.randn(2, 6, 3, 32, 32, dtype=torch.float64)
    return Batch(clean, degraded, torch.arange(6))


@pytest.mark.parametrize("layer", ["deep", "shallow"])
def test_the_loss_and_its_gradients_are_those_of_the_formula(layer):
    recipe = Recipe(distillation_weight=0.3, clamp=(-1.0, 10.0), layer=layer)
    step, pairs = new_step(recipe).double(), batch()
    twin = copy.deepcopy(step)
    network, uem = twin.model.network, twin.uem
    result = step(pairs)
    result.loss.backward()

    def trunk(x):
        if layer == "shallow":
            return network.stem(x)
        return network.layer3(network.layer2(network.layer1(network.stem(x))))

    def classified(x):
        if layer == "shallow":
            x = network.layer3(network.layer2(network.layer1(x)))
        return network.fc(x.mean((2, 3)))

    sigma, z_hat = uem(trunk(pairs.degraded))
    degraded = functional.cross_entropy(classified(z_hat), pairs.labels)
    z = trunk(pairs.clean)
    clean = functional.cross_entropy(classified(z), pairs.labels)
    limited = sigma.clamp_min(-1.0)
    share = (sigma < -1.0).double().mean()
    assert 0 < share < 1
    distillation = 0.3 * ((-limited).exp() * (z - z_hat) ** 2 + 2 * limited).mean()
    (clean + degraded + distillation).backward()

    torch.testing.assert_close(result.loss, clean + degraded + distillation, rtol=1e-12, atol=0)
    torch.testing.assert_close(result.logs["clean"], clean)
    torch.testing.assert_close(result.logs["degraded"], degraded)
    assert result.logs["log_variance_clamped"] == pytest.approx(float(share))
    theirs = dict(twin.named_parameters())
    assert step.uem.spec.variant == "reconstruct"
    for name, weight in step.named_parameters():
        assert theirs[name].grad.abs().max() > 0
        torch.testing.assert_close(weight.grad, theirs[name].grad, rtol=1e-9, atol=1e-12)
    # degraded first: the running averages depend on the order of the two passes
    torch.testing.assert_close(step.state_dict(), twin.state_dict(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("epsilon", [1e-6, 0.5])
def test_epsilon_is_that_of_the_official_script(epsilon):
    """λ·(d²/(2·exp(σ) + ε) + σ), with its λ = 2 ours; σ down to −40, where 1e-6 is all there is."""
    recipe = Recipe(distillation_weight=0.3, clamp=None, epsilon=epsilon)
    z_hat, z = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    sigma = torch.linspace(-40, 3, 300, dtype=torch.float64).view(3, 4, 5, 5).requires_grad_()
    expected = 0.6 * ((z - z_hat) ** 2 / (2 * sigma.exp() + epsilon) + sigma).mean()
    found = new_step(recipe).distillation(z_hat, z, sigma)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for ours, theirs in zip(
        *(torch.autograd.grad(value, (z_hat, z, sigma)) for value in (found, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_epsilon_stands_alone():
    with pytest.raises(ValueError, match=r"stands with --recipe\.clamp None"):
        new_step(Recipe(epsilon=1e-6))
    with pytest.raises(ValueError, match="which ulfd_reconstruct follows"):
        METHODS["ulfd"].make_step(ResNet(Network(), 10), Recipe(epsilon=1e-6), UEMOptions())


def test_at_test_time_every_image_goes_through_the_head():
    model = new_step().eval().model
    network, uem = model.network, model.inserted.uem
    images = torch.randn(2, 3, 32, 32)
    feature = network.layer3(network.layer2(network.layer1(network.stem(images))))
    expected = network.fc(uem(feature).feature.mean((2, 3)))
    torch.testing.assert_close(model(images), expected)
    assert (expected - network(images)).abs().max() > 1e-3


@pytest.mark.parametrize("shape", ["element", "sample"])
def test_sigma_is_that_of_the_feature_before_the_head(shape):
    step = new_step(log_variance=shape).eval()
    one = Trained("ulfd_reconstruct/0", step.model, step.uem, step.layer)
    clean, shown = torch.randint(0, 256, (2, 6, 3, 32, 32), dtype=torch.uint8)
    found = {"clean": look(one, clean)[1], "shown": look(one, shown)[1]}
    for name, images in (("clean", clean), ("shown", shown)):
        with torch.no_grad():
            z = step.model.before(normalised(images))
            sigma, z_hat = step.uem(z)
        torch.testing.assert_close(found[name].teacher, z)
        torch.testing.assert_close(found[name].student, z_hat)
        torch.testing.assert_close(found[name].log_variance, sigma)
    measured = calibration(found["shown"], found["clean"])
    square = (found["clean"].teacher - found["shown"].student).square().mean()
    assert measured["squared_difference"] == pytest.approx(float(square), rel=1e-6)


def test_the_uem_s_weights_are_saved_once_and_under_its_own_names():
    step = new_step()
    save(step.state_dict())  # raises for tensors that share memory
    assert step.uem is step.model.inserted.uem
    spec = UEMSpec.official(64, variant="reconstruct")
    shapes = {name: tuple(value.shape) for name, value in step.uem.state_dict().items()}
    assert shapes == spec.weight_shapes()
    with_uem = sum(weight.numel() for weight in step.parameters())
    network = sum(weight.numel() for weight in ResNet(Network(), 10).parameters())
    assert with_uem == network + spec.parameters()


@pytest.mark.parametrize("change", ["teacher=frozen", "teacher=self_detached",
                                    "batch_norm=concatenated"])  # fmt: skip
def test_what_the_official_script_does_not_have_is_refused_before_a_run(change):
    run = replace(PRESETS["digits"], methods=(f"ulfd_reconstruct@{change}",))
    value = change.partition("=")[2]
    with pytest.raises(RunError, match=rf"'{value}'.*official script.*the method ulfd"):
        small.check(run)


def test_at_full_scale_it_has_the_official_number_of_parameters():
    with torch.device("meta"):
        make_step = METHODS["ulfd_reconstruct"].make_step
        step = make_step(ARCHITECTURES["resnet50"].make(1000), SHORT, UEMOptions())
        images = torch.rand(2, 3, 224, 224)
        loss = step(Batch(images, images, torch.zeros(2, dtype=torch.int64))).loss
        assert step.model(images).shape == (2, 1000)
        assert step.model.before(images).shape == (2, 2048, 7, 7)
    assert loss.shape == ()
    assert sum(weight.numel() for weight in step.uem.parameters()) == 52_455_424
