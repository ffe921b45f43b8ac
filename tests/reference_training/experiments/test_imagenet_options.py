"""What a full-scale run exports, refuses, and is told by its recipe's name."""

import math
import re
import sys
from dataclasses import replace

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from reference_training.config import OFFICIAL_CODE, PAPER, ImageNetRun
from reference_training.corruptions import frost
from reference_training.experiments import imagenet
from reference_training.experiments.job import resolve
from reference_training.methods.ulfd_reconstruct import ReconstructStep
from reference_training.run import main, parse
from reference_training.training import export, loop
from reference_training.training.schedule import Schedule, stepwise
from tests.reference_training.experiments.material import rows


def test_the_export_is_plain_torchvision(small, tmp_path, monkeypatch):
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = {}
    write = export.write

    def spy(folder, step, *told):
        step.eval()
        with torch.no_grad():
            expected["logits"] = step.model(images)
        write(folder, step, *told)

    monkeypatch.setattr(imagenet.export, "write", spy)
    short = ["--arch", "resnet18", "--recipe.iterations", "1", "--out", str(tmp_path / "run")]
    assert main([*small, *short]) == 0
    folder = tmp_path / "run/export"
    plain = torchvision.models.resnet18(num_classes=8).to(memory_format=torch.channels_last)
    plain.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.no_grad():
        assert torch.equal(plain.eval()(images), expected["logits"])
    from ulfd_torch import UEM

    UEM.official(512).load_state_dict(load_file(folder / "uem.safetensors"))
    card = (folder / "README.md").read_text()
    assert "torchvision.models.resnet18(num_classes=8)" in card
    assert "| loss, last |" in card
    assert re.search(r"λ, prior weight \| 0.1, 2 \|", card)


def test_without_training_the_starting_weights_are_exported(small, tmp_path):
    folder = tmp_path / "run"
    given = torchvision.models.resnet18(num_classes=8).state_dict()
    torch.save(given, tmp_path / "start.pth")
    vanilla = ["--experiment", "table1/vanilla", "--arch", "resnet18", "--recipe.iterations", "0"]
    assert main([*small, *vanilla, "--weights", f"{tmp_path}/start.pth", "--out", f"{folder}"]) == 0
    found = load_file(folder / "export/model.safetensors")
    assert all(torch.equal(found[name], given[name]) for name in given)
    assert not (folder / "export/uem.safetensors").exists()


BAD = {
    "experiment": (["--experiment", "table9/ulfd"], "unknown experiment 'table9/ulfd'"),
    "recipe": (["--recipe", "best"], "unknown recipe 'best'"),
    "arch": (["--arch", "vgg"], "--arch is 'vgg'"),
    "sampling": (["--corruption-sampling", "all"], "--corruption-sampling is 'all'"),
    "batch": (["--accumulate", "5"], "12 cannot be divided among 1 processes x --accumulate 5"),
    "crop": (["--crop", "64"], "--crop 64 does not fit into --resize 36"),
    "weights": (["--arch", "resnet18", "--weights", "none.pth"], "none.pth are not there"),
    "no weights": (["--weights", "pretrained"], "no pretrained weights of a resnet8"),
    "frost": (["--frost", "snowy"], "frost"),
    "teacher": (["--recipe.teacher", "me"], "teacher is 'me'"),
    "sync": (["--numerics.sync-batch-norm"], "needs GPUs"),
    "device": (["--device", "tpu"], "--device tpu is not available here"),
    "data": (["--data-root", "no/such/folder"], "does not exist"),
    "wandb": (["--wandb", "x"], "wandb not installed, but --wandb needs it. Install it with:"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_a_message(name, small, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    arguments, message = BAD[name]
    assert main([*small, "--out", str(tmp_path / "run"), *arguments]) == 1
    error = capsys.readouterr().err
    assert "error: " in error
    assert message in error
    assert not (tmp_path / "run" / "run.json").exists()


def test_too_many_unreadable_files_end_the_run(small, tmp_path, capsys):
    assert main([*small, "--out", str(tmp_path / "run"), "--most-unreadable", "0"]) == 1
    message = capsys.readouterr().err
    assert re.search(r"files cannot be decoded, among them astronaut/000\d.jpeg", message)


def test_recipes_by_name():
    run = parse(["--experiment", "table1/ulfd", "--recipe", "official_code"])
    assert isinstance(run, ImageNetRun)
    assert run.recipe == OFFICIAL_CODE
    assert parse(["--experiment", "table1/ulfd"]).recipe == PAPER


def test_the_official_script_is_its_network_its_length_and_no_clamp():
    """100 epochs of 1,281,167 images in batches of 512, the last of each epoch not full; what was
    validated last, in the even epochs at each 625th iteration, is the network that it keeps."""
    run = parse("--experiment variants/ulfd_reconstruct --recipe official_code".split())
    assert isinstance(run, ImageNetRun)
    epoch = math.ceil(1_281_167 / 512)
    assert run.recipe.iterations == 98 * epoch + epoch // 625 * 625
    assert run.recipe.clamp is None
    steps = [number * epoch + part * 625 for number in range(100) for part in range(1, 5)]
    lowered = [steps[number - 1] for number in (10, 20, 40, 70)]  # the scheduler's milestones
    factor = stepwise(run.recipe.milestones)
    schedule = Schedule(run.recipe.iterations, run.recipe.learning_rate, factor)
    for number, at in enumerate(lowered):
        assert schedule.rate(at - 1) == pytest.approx(1e-3 * 0.1**number)
        assert schedule.rate(at) == pytest.approx(1e-3 * 0.1 ** (number + 1))
    step = resolve(replace(run, arch="resnet8")).make_step(classes=3)
    assert isinstance(step, ReconstructStep)
    assert step.loss.clamp is None


def test_the_papers_frost_is_the_default_and_missing_photographs_end_it_before_training(
    small, tmp_path, monkeypatch, capsys
):
    assert parse(["--experiment", "table1/ulfd"]).frost == "photographs"
    monkeypatch.setattr(frost, "photograph_folder", lambda: None)
    folder = tmp_path / "run"
    given = [*small, "--frost", "photographs", "--out", str(folder)]
    assert main(given) == 1
    assert "`pip install imagecorruptions-imaug`" in capsys.readouterr().err
    assert not folder.exists()
    assert main([*given, "--plan"]) == 0
    assert "    pip install imagecorruptions-imaug\n" in capsys.readouterr().out
    without = ["--experiment", "table3/augmix_ulfd", "--frost", "photographs", "--plan"]
    assert main([*small, *without]) == 0  # of which no pair is corrupted
    assert "imagecorruptions" not in capsys.readouterr().out
    own = parse("--experiment table6a/1 --recipe.batch-size 128".split())
    assert (own.recipe.distillation_weight, own.recipe.batch_size) == (1.0, 128)
    assert parse(["--experiment", "table1/vanilla"]).recipe.iterations == 0


def test_bfloat16_clipping_and_the_fused_optimiser(small, tmp_path):
    folder = tmp_path / "run"
    options = "--numerics.precision bfloat16 --numerics.clip-gradient 1 --recipe.iterations 3"
    assert main([*small, *options.split(), "--out", str(folder)]) == 0
    assert rows(folder)[-1]["loss"] < loop.PLAIN.max_loss
