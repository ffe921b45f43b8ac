"""`python -m reference_training.evaluate` as users run it: whole, killed, interrupted, misused."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from reference_training.data.class_folders import ClassFolders
from reference_training.evaluate import Evaluation, evaluation_data, main
from reference_training.networks.resnet import ResNet
from reference_training.presets import PRESETS
from reference_training.runtime.errors import RunError
from tests.reference_training.evaluation.material import CLASSES, CORRUPTIONS

LISTED = ((CLASSES[1], 2), (CLASSES[0], 1))

DIGITS = "run:digits --data digits --frost procedural --subset 60".split()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    save_file(ResNet(PRESETS["digits"].network, 10).state_dict(), path)
    return path


def arguments(weights: Path, out: Path, *more: str) -> list[str]:
    return [*DIGITS, "--checkpoint", str(weights), "--out", str(out), *more]


def start(given: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "reference_training.evaluate", *given]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, preexec_fn=_heed_interrupts)


def _heed_interrupts() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_sets(out: Path, count: int, process: subprocess.Popen) -> None:
    for _ in range(12_000):
        if len(list((out / "sets").glob("*.json"))) >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    raise AssertionError("the sets never came")


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory):
    """All 96 sets in one go."""
    out = tmp_path_factory.mktemp("evaluation") / "whole"
    assert main(arguments(weights, out)) == 0
    return out / "result.json"


def test_killed_in_the_middle_and_started_again_ends_with_identical_results(
    weights, whole, tmp_path
):
    out = tmp_path / "killed"
    process = start(arguments(weights, out))
    wait_for_sets(out, 10, process)
    process.kill()
    process.communicate()
    done = {path.name: path.stat().st_mtime_ns for path in (out / "sets").glob("*.json")}
    assert 10 <= len(done) < 96
    assert not (out / "result.json").exists()
    assert main(arguments(weights, out)) == 0
    assert (out / "result.json").read_bytes() == whole.read_bytes()
    # what was finished was not computed again
    assert all((out / "sets" / name).stat().st_mtime_ns == then for name, then in done.items())


def test_interrupted_says_how_to_continue(weights, whole, tmp_path):
    out = tmp_path / "interrupted"
    process = start(arguments(weights, out))
    wait_for_sets(out, 3, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    message = re.search(r"continue with: python -m reference_training.evaluate (.*)", err)
    assert message
    assert message[1].split() == arguments(weights, out)
    assert main(arguments(weights, out)) == 0
    assert (out / "result.json").read_bytes() == whole.read_bytes()


def test_prints_tables_and_leaves_the_result(weights, whole, capsys):
    assert main(arguments(weights, whole.parent)) == 0
    out = capsys.readouterr().out
    assert "SUBSET of 60 of 500 images" in out
    halves = "normalised by mean (0.5, 0.5, 0.5), std (0.5, 0.5, 0.5)\n"
    assert out.startswith(f"run:digits (digits.safetensors): images of their own size, {halves}")
    assert "Unseen: mean top-1, 4 types × 5 severities" in out
    assert "No mCE, Relative mCE: no errors to normalise by are known" in out
    result = json.loads(whole.read_text())
    assert len(result["top1"]["corruptions"]) == 19
    assert result["metrics"]["seen_top1"]["value"] == pytest.approx(
        1 - result["metrics"]["mean_error"]["value"]
    )
    assert result["model"]["name"] == "run:digits (digits.safetensors)"


def test_the_default_folder_keeps_subsets_apart():
    whole, part = (
        str(Evaluation("timm:resnet50", "data/val", subset=subset).folder) for subset in (None, 500)
    )
    assert re.fullmatch(r"runs/evaluation/timm-resnet50-val-[0-9a-f]{6}", whole)
    assert part == whole + "-subset-500"
    assert str(Evaluation("run:digits", "digits").folder) == "runs/evaluation/run-digits-digits"
    assert Evaluation("resnet50", "old/val").folder != Evaluation("resnet50", "new/val").folder
    mine, other = (
        Evaluation("run:digits", "digits", checkpoint=Path(at, "m.pth")).folder for at in "ab"
    )
    assert re.fullmatch(r"run-digits-m.pth-[0-9a-f]{6}-digits", mine.name)
    assert mine != other


@pytest.mark.parametrize("classes", [2, 3])
def test_a_folder_of_splits_is_no_folder_of_classes(tmp_path, classes):
    """Two splits are not taken for two classes, and the error names the folder that was meant."""
    for split in ("train", "val"):
        for name in ("a", "b", "c")[:classes]:
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / "0.png")
    with pytest.raises(RunError, match=re.escape(f"did you mean {tmp_path / 'train'} or ")):
        ClassFolders(tmp_path, classes)
    assert ClassFolders(tmp_path / "val", classes).classes == classes


def test_a_folder_that_apply_has_only_begun_is_no_folder_of_clean_images(tmp_path):
    (tmp_path / "corruptions.json").write_text("{}")
    with pytest.raises(RunError, match=r"has none of .* Run the same `corruptions apply` into"):
        evaluation_data(Evaluation("resnet18", str(tmp_path)), 2)


def test_results_are_not_written_among_the_images(clean_folder, three, monkeypatch, capsys):
    before = sorted(entry.name for entry in clean_folder.iterdir())
    monkeypatch.chdir(clean_folder)
    given = ["squeezenet1_1", "--checkpoint", str(three), "--data", "."]
    assert main(given) == 1
    assert "into the images' own folder" in capsys.readouterr().err
    assert sorted(entry.name for entry in clean_folder.iterdir()) == before


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
    """Weights of a torchvision network for three classes."""
    from torchvision import models

    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("three") / "three.safetensors"
    save_file(models.squeezenet1_1(weights=None, num_classes=3).state_dict(), path)
    return path


def test_published_folders_with_clean_images(published_folder, clean_folder, three, tmp_path):
    given = ["squeezenet1_1", "--checkpoint", str(three), "--data", str(published_folder)]
    given += ["--clean", str(clean_folder), "--corruptions", *CORRUPTIONS]
    given += ["--workers", "0", "--out", str(tmp_path / "out")]
    assert main(given) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert set(result["top1"]["corruptions"]) == set(CORRUPTIONS)
    assert result["data"]["published"] == "ImageNet-C (3 classes, 224x224)"
    assert result["metrics"]["clean_squash224_top1"]["value"] is not None


def test_a_list_of_images(published_folder, three, tmp_path):
    """As RobustBench's, relative to a severity's folder."""
    listed = tmp_path / "two.txt"
    listed.write_text("".join(f"{name}/ILSVRC2012_val_{at:08d}.JPEG\n" for name, at in LISTED))
    given = ["squeezenet1_1", "--checkpoint", str(three), "--data", str(published_folder)]
    given += ["--corruptions", "saturate", "--image-list", str(listed), "--workers", "0"]
    assert main([*given, "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["label"].endswith("SUBSET of 2 of 6 images, those in two.txt")
    assert Evaluation("resnet50", "digits", image_list=listed).folder.name == "resnet50-digits-two"


def test_clean_folders_are_corrupted_on_the_fly(clean_folder, three, tmp_path):
    given = ["squeezenet1_1", "--checkpoint", str(three), "--data", str(clean_folder)]
    given += ["--corruptions", "brightness", "--parameters", "cifar32", "--jpeg85"]
    given += ["--workers", "1", "--frost", "procedural", "--out", str(tmp_path / "out")]
    assert main(given) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["data"]["jpeg85"] is True
    assert result["data"]["corruptions"]["parameters"] == "cifar32"
    assert result["label"].startswith("val, corrupted on the fly, JPEG 85, generated frost, all 6")


def test_arrays(arrays_folder, weights, tmp_path):
    given = ["run:digits", "--checkpoint", str(weights), "--data", str(arrays_folder)]
    given += ["--corruptions", "fog", "--out", str(tmp_path / "out")]
    assert main(given) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["top1"]["clean"] == {}
    assert len(result["top1"]["corruptions"]["fog"]) == 5


BAD = {
    "adaptation": (["--adaptation", "tent"], "use one of none, bn, bn_prior, rpl, rpl5"),
    "data": (["--data", "no/such"], "neither a folder nor one of"),
    "model": (["--corruptions", "fogg"], "did you mean 'fog'"),
    "checkpoint": (["--checkpoint", "no.pth"], "are not there; check the file"),
    "subset": (["--subset", "501"], "--subset is 501"),
    "levels": (["--mean", "123.7", "116.3", "103.5", "--std", "1", "1", "1"], "divide those of 0"),
    "mean alone": (["--mean", "0.4", "0.4", "0.4"], "--mean and --std belong together"),
    "std alone": (["--std", "0.2", "0.2", "0.2"], "--mean and --std belong together"),
    "seed": (["--seed", "-1"], "--seed is -1"),
    "frost": (["--frost", "snowy"], "frost: 'snowy' is unknown"),
    "parameters": (["--parameters", "cifar64"], "parameters: 'cifar64' is unknown"),
    "batch": (["--batch-size", "0"], "--batch-size is 0"),
    "workers": (["--workers", "-1"], "--workers is -1"),
    "clean": (["--clean", "digits"], "--clean is for published sets"),
    "no clean": (["--clean", "no/such"], "--clean no/such is neither a folder nor one of"),
    "device": (["--device", "cuda:77"], "--device cuda:77 is not available"),
    "reference": (["--reference", "no.json"], "does not exist"),
    "folder": (["--reference", "."], "the reference . is a folder without a result.json"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_a_message(name, weights, tmp_path, capsys):
    more, message = BAD[name]
    assert main(arguments(weights, tmp_path / "out", *more)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_options_for_clean_images_are_refused_with_published_ones(arrays_folder, weights, capsys):
    given = ["run:digits", "--checkpoint", str(weights), "--data", str(arrays_folder), "--jpeg85"]
    assert main(given) == 1
    assert "holds published images; --jpeg85" in capsys.readouterr().err


def test_the_help_needs_no_data(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for word in ("MODEL", "--subset", "--jpeg85", "--checkpoint", "torchrun"):
        assert word in out
