"""Tapping a layer: plain, nested, compiled, wrapped, and every way to see nothing."""

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from ulfd_torch import FeatureTap


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Flatten()), nn.LazyLinear(2)
    )


def test_takes_the_layers_output():
    network, images = resnet18(), torch.rand(2, 3, 64, 64)
    with FeatureTap(network, "layer4") as deep, FeatureTap(network, "layer1.0.conv1") as shallow:
        network(images)
        assert deep.take().shape == (2, 512, 2, 2)
        assert shallow.take().shape == (2, 64, 16, 16)


def test_the_feature_carries_gradients():
    network = model()
    with FeatureTap(network, "1.0") as tap:
        network(torch.rand(2, 3, 8, 8))
        tap.take().sum().backward()
    assert network[0].weight.grad.abs().sum() > 0


def test_an_unknown_layer_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no layer 'layer9'.*'layer4'"):
        FeatureTap(resnet18(), "layer9")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (["layer3", "layer4"], "multi_layer.py"),
        (nn.Sequential(nn.Conv2d(3, 8, 3)), r"the module Sequential\(\.\.\.\).*as 'layer4'"),
        (None, "layer is None"),
    ],
)
def test_a_layer_is_a_name(layer, message):
    with pytest.raises(TypeError, match=message) as error:
        FeatureTap(model(), layer)
    assert "\n" not in str(error.value)  # no module is written out


def test_a_model_is_a_module():
    with pytest.raises(TypeError, match="model is the class Sequential"):
        FeatureTap(nn.Sequential, "0")


def test_nothing_seen_is_an_error():
    network = model()
    tap = FeatureTap(network, "0")
    with pytest.raises(RuntimeError, match="saw nothing"):
        tap.take()
    network(torch.rand(2, 3, 8, 8))
    tap.take()
    with pytest.raises(RuntimeError, match="saw nothing"):  # a stale feature is never returned
        tap.take()


def test_closing_removes_the_hook():
    network = model()
    with FeatureTap(network, "0"):
        pass
    assert not network[0]._forward_hooks


def test_a_paused_tap_keeps_nothing():
    network = model()
    with FeatureTap(network, "0") as tap:
        network(torch.rand(2, 3, 8, 8))
        tap.pause()
        network(torch.rand(2, 3, 8, 8))
        with pytest.raises(RuntimeError, match="saw nothing"):
            tap.take()
        tap.resume()
        network(torch.rand(5, 3, 8, 8))
        assert len(tap.take()) == 5


def test_a_model_saved_whole_loads_without_this_package(tmp_path):
    network, images = model(), torch.ones(2, 3, 8, 8)
    expected = network(images)
    FeatureTap(network, "0")
    network(images)  # the tap holds a feature with its graph, which cannot be copied or saved
    torch.save(network, tmp_path / "whole.pt")
    program = (
        "import sys, torch; network = torch.load('whole.pt', weights_only=False);"
        "torch.save(network(torch.ones(2, 3, 8, 8)), 'logits.pt');"
        "assert not any(name.startswith('ulfd') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected)


def through_a_file(both):
    file = io.BytesIO()
    torch.save(both, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both)), through_a_file]
)
def test_a_tap_that_is_copied_with_its_model_sees_the_copy(clone):
    network = model()
    network(torch.rand(1, 3, 8, 8))
    tap = FeatureTap(network, "0")
    twin, twin_tap = clone((network, tap))
    twin(torch.rand(5, 3, 8, 8))
    assert len(twin_tap.take()) == 5
    with pytest.raises(RuntimeError, match="saw nothing"):
        tap.take()


def test_a_layer_that_returns_no_tensor():
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    network = nn.Sequential(Two())
    with FeatureTap(network, "0"), pytest.raises(TypeError, match="returns a tuple"):
        network(torch.zeros(1))


def test_compiled_and_data_parallel_wrappers_are_seen_through():
    network, images = model(), torch.rand(2, 3, 8, 8)
    network(images)
    plain = FeatureTap(network, "1")
    expected = (network(images), plain.take())[1]
    plain.close()
    for wrapped in (torch.compile(network, backend="eager"), nn.DataParallel(network)):
        with FeatureTap(wrapped, "1") as tap:
            wrapped(images)
            torch.testing.assert_close(tap.take(), expected)


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)), "1"),
        (lambda: resnet18(num_classes=3), "bn1"),  # an in-place ReLU
        (lambda: resnet18(num_classes=3), "layer4.1.bn2"),  # out += identity
    ],
)
def test_an_output_that_is_changed_in_place_is_refused(make, layer):
    torch.manual_seed(0)
    network, images = make(), torch.rand(2, 3, 33, 33)
    with FeatureTap(network, layer) as tap:
        network(images)
        with pytest.raises(RuntimeError, match=r"changes its output in place.*inplace=False"):
            tap.take()
        network(images[:, :, :32])  # and the next pass says so again
        with pytest.raises(RuntimeError, match="in place"):
            tap.take()


def test_the_remedy_gives_the_layers_own_output():
    torch.manual_seed(0)
    network, images = resnet18(), torch.rand(2, 3, 33, 33)
    own = network.bn1(network.conv1(images))
    with FeatureTap(network, "bn1") as tap:
        network.relu.inplace = False
        network(images)
        feature = tap.take()
    torch.testing.assert_close(feature, own)
    assert feature.min() < 0


@pytest.mark.parametrize("compiled", [False, True])
def test_in_inference_and_compiled_the_output_is_the_layers_own(compiled):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    images = torch.rand(2, 3, 8, 8)
    own = network[0](images).detach()
    with FeatureTap(network, "0") as tap:
        if compiled:
            torch._dynamo.reset()
            torch.compile(network, backend="aot_eager")(images)
        else:
            with torch.inference_mode():
                network(images)
        torch.testing.assert_close(tap.take().detach(), own)
