"""What --plan predicts, against torchvision's own counts and closed forms."""

from collections import Counter

import pytest
import torch

from reference_training.config import PaperRun
from reference_training.experiments import plan
from reference_training.experiments.roofline import GPUS
from reference_training.networks.backbones import ARCHITECTURES, load_weights, pretrained_file
from reference_training.run import main, parse
from reference_training.runtime.errors import RunError
from ulfd.uem import UEMSpec


def of(*arguments: str) -> PaperRun:
    run = parse(["--experiment", "table1/ulfd", *arguments])
    assert isinstance(run, PaperRun)
    return run


@pytest.mark.parametrize("arch", ["resnet50", "resnext101_32x8d"])
def test_flops_are_torchvisions_and_the_uems(arch):
    """Two passes through the network, one through the UEM; backward is twice as much, but for the
    gradient of the images, which nobody needs."""
    found = plan.cost(of("--arch", arch))
    meta = ARCHITECTURES[arch].pretrained.meta
    backbone = 2 * meta["_ops"] * 1e9  # GMAC as torchvision states them
    uem = UEMSpec(2048).multiply_accumulates(7, 7)
    assert found.forward_flops == pytest.approx(2 * (backbone + uem), rel=2e-3)
    images = 2 * 2 * (112 * 112 * 64) * (3 * 7 * 7)
    assert found.flops == 3 * found.forward_flops - images
    assert found.uem_flops == 2 * uem
    assert found.weights == meta["num_params"] + UEMSpec(2048).parameters()


SMALL = ("--arch", "resnet18", "--crop", "64", "--resize", "73")


def test_without_a_uem_there_is_no_share_of_it():
    found = plan.cost(of(*SMALL, "--experiment", "table5/cross_entropy"))
    assert found.uem_flops == found.loss_bytes == 0
    assert found.parts["UEM"] == found.parts["loss"] == []
    device = GPUS["H100"].device("bfloat16")
    assert found.seconds(device)["network"] > 0 == found.seconds(device)["UEM"]


@pytest.mark.parametrize(("options", "words"), [
    ((), 3 + 6),
    (("--recipe.teacher", "self_detached"), 3 + 5),
    (("--experiment", "table1/feature_distillation"), 2 + 4),
    (("--uem.log-variance", "sample"), 2 + 4),
])  # fmt: skip
def test_the_loss_reads_forward_and_reads_and_writes_backward(options, words):
    """The features' words; what remains is σ's, where there is one for a sample, and scalars."""
    found = plan.cost(of(*SMALL, *options), pairs=4)
    assert found.loss_bytes == pytest.approx(words * 2 * 512 * 2 * 2, abs=32)  # bfloat16
    assert len(found.parts["loss"]) == 2


def test_the_parts_are_the_whole():
    """The network's part is what it does without a UEM, and the UEM's is in closed form."""
    run, plain = of(*SMALL), of(*SMALL, "--experiment", "table5/cross_entropy")
    found, alone = plan.cost(run, pairs=4), plan.cost(plain, pairs=4)
    flops = {part: sum(one.flops for one in found.parts[part]) for part in found.parts}
    assert sum(flops.values()) == 4 * found.flops
    assert flops["network"] == 4 * alone.flops
    uem = UEMSpec(512)
    assert flops["UEM"] == 4 * 3 * 2 * uem.multiply_accumulates(2, 2)
    weights = sum(one.moved for one in found.parts["UEM"] if one.kind == "update")
    assert weights == 7 * 4 * uem.parameters()
    # Twice the parts of a batch: the optimiser's share of each is half.
    halved = plan.cost(of(*SMALL, "--accumulate", "2"), pairs=4).parts["UEM"]
    assert sum(one.moved for one in halved if one.kind == "update") == weights // 2
    # Each convolution of the UEM: forward, and backward both products in one.
    kinds = Counter(one.kind for one in found.parts["UEM"])
    assert (kinds["convolution"], kinds["transposed convolution"]) == (2 * 7 * 3, 2)


def test_weights_are_moved_once_for_a_whole_batch():
    """Twice the pairs take less than twice the bytes, and exactly twice the FLOP."""
    run = of(*SMALL)
    few, many = plan.cost(run, pairs=4), plan.cost(run, pairs=8)
    assert many.flops == few.flops
    bytes_of = [sum(one.moved for one in found.parts["UEM"]) for found in (few, many)]
    assert 1 < bytes_of[1] / bytes_of[0] < 1.5


def test_hours_are_the_least_time_times_the_factors(capsys):
    """At 224 pixels, the shares and hours that are printed are those of the roofline."""
    assert main(["--experiment", "table1/ulfd", "--plan", "--plan-gpus", "8"]) == 0
    text = capsys.readouterr().out
    parts = plan.cost(of(), pairs=32).seconds(GPUS["H100"].device("bfloat16"))
    step = sum(parts.values())
    assert f"the UEM {parts['UEM'] / step:.0%}, the loss {parts['loss'] / step:.2%}" in text
    hours = [40_000 * step * factor / 3600 for factor in plan.SLOWDOWN]
    assert f"{hours[0]:.1f} to {hours[1]:.1f} h" in text
    assert "14.5 GMAC forward, of which the UEM's 6.28 for" in text
    assert 0.1 < parts["UEM"] / step < 0.4
    assert 0.0005 < parts["loss"] / step < 0.005


def test_saved_activations_are_counted():
    """A float32 run keeps twice the bytes of a bfloat16 one, but for labels and masks."""
    low = plan.cost(of(*SMALL))
    high = plan.cost(of(*SMALL, "--numerics.precision", "float32"))
    assert 1.5 < high.saved_bytes / low.saved_bytes <= 2.0
    # conv1's output alone is kept twice (clean, degraded), and its normalised twin too
    assert high.saved_bytes > 2 * 2 * 64 * 32 * 32 * 4


def test_the_plan_says_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    arguments = ["--experiment", "table1/ulfd", "--data-root", str(tmp_path / "data"), "--plan"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "40000 iterations x 256 = 10,240,000 (8.0 epochs" in text
    assert "14.5 GMAC forward" in text
    assert "ILSVRC2012_img_train.tar" in text
    assert "zenodo.org/records/2235448" in text
    assert "get_weight('ResNet50_Weights.IMAGENET1K_V1')" in text
    assert not (tmp_path / "data").exists()
    for part in ("train", "val", "imagenet-c"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for label in range(1000):
        (tmp_path / "data" / "train" / f"n{label:08d}").mkdir()
    run = of("--data-root", str(tmp_path / "data"))
    pretrained_file("resnet50").parent.mkdir(parents=True)
    pretrained_file("resnet50").write_bytes(b"")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert plan.missing(run) == []


def test_more_memory_than_the_gpu_has_is_said(capsys):
    arguments = "--experiment table1/ulfd --arch resnext101_32x8d --plan --plan-gpu RTX4090".split()
    assert main(arguments) == 0
    assert "raise --accumulate" in capsys.readouterr().out
    assert main([*arguments, "--accumulate", "16"]) == 0
    assert "raise --accumulate" not in capsys.readouterr().out
    assert main([*arguments, "--plan-gpu", "abacus"]) == 1


@pytest.mark.parametrize(("content", "message"), [
    (b"", "cannot be read|does not hold"),
    (b"cos\nsystem\n(S'touch pwned'\ntR.", "cannot be read|does not hold"),
])  # fmt: skip
def test_weights_that_are_none(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model = ARCHITECTURES["resnet18"].make(1000)
    with pytest.raises(RunError, match=r"are not there. Get it with\n.*ResNet18_Weights"):
        load_weights(model, "resnet18", "pretrained")
    path = pretrained_file("resnet18")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(RunError, match="SHA-256 is not the one in its name"):
        load_weights(model, "resnet18", "pretrained")
    (tmp_path / "own.pth").write_bytes(content)
    with pytest.raises(RunError, match=message):
        load_weights(model, "resnet18", str(tmp_path / "own.pth"))
    (tmp_path / "own.safetensors").write_bytes(content)
    with pytest.raises(RunError, match="does not hold the weights of a resnet18"):
        load_weights(model, "resnet18", str(tmp_path / "own.safetensors"))
    torch.save(ARCHITECTURES["resnet18"].make(10).state_dict(), tmp_path / "ten.pth")
    with pytest.raises(RunError, match="of a resnet18 with 1000 classes"):
        load_weights(model, "resnet18", str(tmp_path / "ten.pth"))
