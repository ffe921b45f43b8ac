"""Layers, channels and layouts found by one pass, which leaves the model as it was."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models

from ulfd_torch import UEM, FeatureTap, SelfDistillation, suggest_layers
from ulfd_torch.layers import layer_output


def swin():
    return models.SwinTransformer([4, 4], 8, [1, 1], [1, 2], [2, 2], num_classes=5)


def convnext():
    setting = models.convnext.CNBlockConfig
    return models.ConvNeXt([setting(8, 16, 1), setting(16, None, 1)], num_classes=5)


def vit():
    return models.VisionTransformer(32, 8, 1, 2, 12, 24, num_classes=5)


def timm_network(name, **options):
    return pytest.importorskip("timm").create_model(name, pretrained=False, **options)


def timm_convnext():
    return timm_network("convnext_atto", depths=(1,) * 4, dims=(8, 8, 8, 16))


def timm_swin():
    options = {"img_size": 32, "window_size": 2, "embed_dim": 8, "depths": (1, 1)}
    return timm_network("swin_tiny_patch4_window7_224", num_heads=(1, 2), **options)


def timm_vit():
    options = {"img_size": 32, "embed_dim": 12, "depth": 1, "num_heads": 2}
    return timm_network("vit_tiny_patch16_224", **options)


# The first suggestion, its shape without the batch, its layout, and the second suggestion.
NETWORKS = {
    "resnet": (lambda: models.resnet18(num_classes=5), "layer4", (512, 1, 1), "NCHW", "layer3"),
    "convnext": (convnext, "features", (16, 4, 4), "NCHW", "features.1"),
    "swin": (swin, "norm", (4, 4, 16), "NHWC", "features.1"),
    "vit": (vit, "encoder", (17, 12), "NTC", "conv_proj"),
    "vgg": (lambda: models.vgg11(num_classes=5), "features", (512, 1, 1), "NCHW", None),
    "squeezenet": (models.squeezenet1_1, "features", (512, 1, 1), "NCHW", "features.10"),
    "timm resnet": (
        lambda: timm_network("resnet18"),
        "layer4",
        (512, 1, 1),
        "NCHW",
        "layer3",
    ),
    "timm convnext": (timm_convnext, "stages", (16, 1, 1), "NCHW", "stages.2"),
    "timm swin": (timm_swin, "norm", (4, 4, 16), "NHWC", "layers.0"),
    "timm vit": (timm_vit, "norm", (5, 12), "NTC", "patch_embed"),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_last_feature_before_the_pooling_comes_first(kind):
    make, name, shape, layout, second = NETWORKS[kind]
    model, images = make(), torch.rand(2, 3, 32, 32)
    layers = suggest_layers(model, images)
    assert layers[0] == (name, (2, *shape))
    assert [layer.name for layer in layers[1:2]] == [second] * (second is not None)
    for layer in layers:
        with FeatureTap(model.eval(), layer.name) as tap:
            model(images)
            assert tap.take().shape == layer.shape
    for options in ({}, {"official": True, "blocks": 1}):
        uem = UEM.for_layer(model, name, images, **options)
        assert (uem.layout, uem.spec.channels) == (layout, shape[layout.index("C") - 1])
        assert uem.spec.global_skip == bool(options)
        feature = torch.rand(2, *shape)
        expected = feature.shape if options else (2, *(1 for _ in shape))
        assert uem(feature).shape == expected
    assert uem.spec.blocks == 1


class Noisy(nn.Module):
    """Draws random numbers in every mode."""

    def forward(self, x):
        return x + torch.rand_like(x)


@pytest.mark.parametrize("size", [8, 9])  # with 9 pixels the model fails
@pytest.mark.parametrize(
    "find", [suggest_layers, lambda *given: layer_output(given[0], "1", given[1])]
)
def test_the_model_stays_as_it_was(find, size):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Noisy(), nn.Flatten(), nn.Linear(144, 2)
    )
    model.train()
    model[1].eval()  # a mode of its own
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[4].weight.requires_grad_(False)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    images, state = torch.rand(2, 3, size, size), torch.get_rng_state()
    if size == 8:
        find(model, images)
    else:
        with pytest.raises(ValueError, match="shapes cannot be multiplied"):
            find(model, images)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert (model[0].weight.grad == 1).all()
    assert model[4].weight.grad is None
    assert [p.requires_grad for p in model.parameters()] == [True] * 4 + [False, True]
    assert not any(module._forward_hooks for module in model.modules())


def test_running_statistics_stay_in_training_mode():
    model, images = models.resnet18().train(), torch.rand(2, 3, 64, 64)
    before = copy.deepcopy(model.state_dict())
    UEM.for_layer(model, "layer4", images)
    suggest_layers(model, images)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_the_pass_draws_nothing_that_the_uem_would():
    """A network that draws even in eval mode; the UEM's weights are those of `UEM(C)`."""
    model = nn.Sequential(Noisy(), nn.Conv2d(3, 4, 1))
    images = torch.rand(2, 3, 8, 8)
    torch.manual_seed(3)
    found = UEM.for_layer(model, "1", images)
    torch.manual_seed(3)
    assert torch.equal(found.head.weight, UEM(4).head.weight)


class Shaped(nn.Module):
    """Puts out a feature of any shape."""

    def __init__(self, *shape, width=1):
        super().__init__()
        self.shape = shape
        self.layer, self.norm = nn.Identity(), nn.LayerNorm(width)

    def forward(self, images):
        return self.layer(images.new_zeros(len(images), *self.shape))


@pytest.mark.parametrize(
    ("shape", "image", "layout"),
    [
        ((8, 4, 4), (32, 32), "NCHW"),
        ((4, 4, 8), (32, 32), "NHWC"),
        ((3, 4, 4), (32, 32), "NCHW"),
        ((64, 4, 6), (33, 49), "NCHW"),  # a stride of 8 rounded down
        ((5, 7, 64), (33, 49), "NHWC"),  # and up
        ((7, 8), (32, 32), "NTC"),
    ],
)
def test_the_layout_follows_from_the_shapes(shape, image, layout):
    uem = UEM.for_layer(Shaped(*shape, width=8), "layer", torch.rand(2, 3, *image))
    assert (uem.layout, uem.spec.channels) == (layout, shape[layout.index("C") - 1])


@pytest.mark.parametrize(
    ("shape", "named"),
    [((8, 8, 8), "NHWC"), ((4, 5, 6), "NCHW"), ((8, 8), "NTC"), ((8, 7), "NTC")],
)
def test_an_open_layout_is_to_be_named(shape, named):
    model, images = Shaped(*shape, width=8), torch.rand(2, 3, 32, 32)
    with pytest.raises(ValueError, match=rf"name the layout: .*{named}"):
        UEM.for_layer(model, "layer", images)
    uem = UEM.for_layer(model, "layer", images, layout=named)
    assert uem.spec.channels == shape[named.index("C") - 1]


def test_wrapped_networks():
    model, images = models.resnet18(), torch.rand(2, 3, 32, 32)
    expected = suggest_layers(model, images)
    compiled = torch.compile(model, backend="eager")
    for wrapped in (compiled, nn.DataParallel(model)):
        assert suggest_layers(wrapped, images) == expected
        assert UEM.for_layer(wrapped, "layer3", images).spec.channels == 256


def test_within_autocast_the_weights_keep_their_gradients():
    model, images = nn.Sequential(nn.Conv2d(3, 4, 1)), torch.rand(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        UEM.for_layer(model, "0", images)
        model(images).float().sum().backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_in_inference_mode():
    with torch.inference_mode():
        model, images = models.resnet18(), torch.rand(2, 3, 32, 32)
        assert suggest_layers(model, images)[0].name == "layer4"


def test_wrong_use():
    images = torch.rand(2, 3, 32, 32)
    with pytest.raises(ValueError, match=r"puts out \(2, 8\), but a UEM needs .*suggest_layers"):
        UEM.for_layer(Shaped(8), "layer", images)
    with pytest.raises(ValueError, match=r"puts out \(2, 7, 8\), but a UEM needs NHWC"):
        UEM.for_layer(Shaped(7, 8), "layer", images, layout="NHWC")
    with pytest.raises(ValueError, match="layout is 'HWC'"):
        UEM.for_layer(Shaped(8, 4, 4), "layer", images, layout="HWC")
    with pytest.raises(ValueError, match="no layer of Sequential puts out features"):
        suggest_layers(nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)), images)
    with pytest.raises(TypeError, match="example is a tuple, but must be a tensor of images"):
        suggest_layers(models.resnet18(), (2, 3, 32, 32))
    for call in (FeatureTap, lambda *given: SelfDistillation(given[0], layer=given[1])):
        with pytest.raises(ValueError, match=r"no layer 'layer9'.*suggest_layers\(model, images\)"):
            call(models.resnet18(), "layer9")


@pytest.mark.parametrize(
    "example",
    [torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.rand(3, 8, 8), torch.rand(1, 8, 8, 3)],
    ids=["uint8", "one image", "channels last"],
)
def test_an_example_that_the_model_does_not_take(example):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    for found in (
        lambda: UEM.for_layer(model, "1", example),
        lambda: suggest_layers(model, example),
    ):
        with pytest.raises(ValueError, match=r"does not take the example, .*\.unsqueeze\(0\)"):
            found()
