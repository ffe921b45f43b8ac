"""What --plan predicts, against torchvision's own counts and closed forms."""

import json

import pytest
import torch

from reference_training.config import ImageNetRun
from reference_training.corruptions import frost
from reference_training.experiments import plan
from reference_training.experiments.job import Job, resolve
from reference_training.networks.backbones import ARCHITECTURES, load_weights, pretrained_file
from reference_training.run import main, parse
from reference_training.runtime.errors import RunError
from ulfd.uem import UEMSpec


def of(*arguments: str) -> Job:
    run = parse(["--experiment", "table1/ulfd", *arguments])
    assert isinstance(run, ImageNetRun)
    return resolve(run)


@pytest.mark.parametrize("arch", ["resnet50", "resnext101_32x8d"])
def test_flops_are_torchvisions_and_the_uems(arch):
    """Two passes through the network and one through the UEM; backward is twice as much."""
    found = plan.cost(of("--arch", arch))
    meta = ARCHITECTURES[arch].pretrained.meta
    backbone = 2 * meta["_ops"] * 1e9  # GMAC as torchvision states them
    uem = UEMSpec.official(2048).multiply_accumulates(7, 7)
    assert found.forward_flops == pytest.approx(2 * (backbone + uem), rel=2e-3)
    assert found.flops == 3 * found.forward_flops
    assert found.uem_flops == 2 * uem
    assert found.weights == meta["num_params"] + UEMSpec.official(2048).parameters()


SMALL = ("--arch", "resnet18", "--crop", "64", "--resize", "73")


def test_without_a_uem_there_is_no_share_of_it():
    assert plan.cost(of(*SMALL, "--experiment", "table5/cross_entropy")).uem_flops == 0


def test_the_time_is_the_runs_own_measured_rate(tmp_path, capsys):
    """The median of the measured pairs a second; before any was measured, no number at all."""
    arguments = ["--experiment", "table1/ulfd", "--plan", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert "not known before it is measured" in capsys.readouterr().out
    rows = [{"iteration": 10}, *({"pairs_per_second": rate} for rate in (1.0, 512.0, 640.0))]
    (tmp_path / "performance.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(arguments) == 0
    assert f"{40_000 * 256 / 512 / 3600:.1f} h at the 512 pairs" in capsys.readouterr().out


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
    job = of("--data-root", str(tmp_path / "data"))
    pretrained_file("resnet50").parent.mkdir(parents=True)
    pretrained_file("resnet50").write_bytes(b"")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(frost, "photograph_folder", lambda: tmp_path)
    assert plan.missing(job) == []


def test_more_memory_than_the_gpu_has_is_said(capsys):
    arguments = "--experiment table1/ulfd --arch resnext101_32x8d --plan --plan-gpu RTX4090".split()
    assert main(arguments) == 0
    assert "raise --accumulate" in capsys.readouterr().out
    assert main([*arguments, "--accumulate", "16"]) == 0
    assert "raise --accumulate" not in capsys.readouterr().out
    assert main([*arguments, "--plan-gpu", "abacus"]) == 1


@pytest.mark.parametrize("content", [b"", b"cos\nsystem\n(S'touch pwned'\ntR."])
def test_weights_that_are_none(tmp_path, monkeypatch, content):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model = ARCHITECTURES["resnet18"].make(1000)
    with pytest.raises(RunError, match=r"are not there. Get it with\n.*ResNet18_Weights"):
        load_weights(model, "resnet18", "pretrained")
    path = pretrained_file("resnet18")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(RunError, match="SHA-256 is not the one in its name"):
        load_weights(model, "resnet18", "pretrained")
    for name in ("own.pth", "own.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RunError, match=f"{name} is not readable as weights"):
            load_weights(model, "resnet18", str(tmp_path / name))
    torch.save(ARCHITECTURES["resnet18"].make(10).state_dict(), tmp_path / "ten.pth")
    with pytest.raises(RunError, match="of a resnet18 with 1000 classes"):
        load_weights(model, "resnet18", str(tmp_path / "ten.pth"))
