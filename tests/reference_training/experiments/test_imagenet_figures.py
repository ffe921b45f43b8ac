"""Figures 1, 2 and 4 at full scale: their numbers again, from the exports and the files."""

import io
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from reference_training.config import Network
from reference_training.corruptions import corrupt
from reference_training.data.views import MEAN, STD
from reference_training.experiments import imagenet_tables
from reference_training.experiments.job import resolve
from reference_training.methods.ddp import DeDriftingStep
from reference_training.networks.backbones import SmallResNet
from reference_training.paper.experiments import EXPERIMENTS
from reference_training.run import main, parse
from reference_training.runtime.errors import RunError
from reference_training.runtime.image_files import resize256_center224
from reference_training.training import export
from scripts.make_photograph_crops import write_folder
from ulfd_torch import UEM

CLASSES, SUBSET, CROP = 8, 8, 32
SMALL = (
    f"--dataset imagenet --arch resnet8 --weights random --crop {CROP} --resize 36 "
    "--recipe.batch-size 12 --recipe.iterations 2 --numerics.precision float32 --workers 0 "
    f"--device cpu --frost procedural --evaluation-subset {SUBSET}"
).split()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("crops")
    write_folder(root, each=2, broken=0)
    (root / "train").rename(root / "val")
    write_folder(root, each=2, broken=0)
    return root


@pytest.fixture(scope="module")
def out(root) -> Path:
    folder = root / "runs"
    for name in ("figure1", "figure2", "figure4"):
        command = ["--experiment", name, *SMALL, "--data-root", str(root), "--out", str(folder)]
        assert main(command) == 0
    return folder


def figure(out: Path, name: str) -> dict:
    return json.loads((out / name / "figure.json").read_text())


def weights(out: Path, row: str, file: str = "model") -> dict[str, Tensor]:
    return load_file(out / f"{row}-resnet8-seed-0/export/{file}.safetensors")


def network(out: Path, row: str) -> SmallResNet:
    model = SmallResNet(Network(), CLASSES)
    model.load_state_dict(weights(out, row))
    return model.eval()


def images(root: Path, positions: list[int], corruption: str = "", severity: int = 0) -> Tensor:
    """What a network sees of the validation images at these positions."""
    files = sorted((root / "val").glob("*/*"))
    inputs = []
    for position in positions:
        image = np.array(resize256_center224(Image.open(files[position]).convert("RGB")))
        if corruption:
            pixels = torch.from_numpy(image).movedim(-1, 0)[None].repeat(position + 1, 1, 1, 1)
            # Position i has the seed i of the whole set.
            shown = corrupt(pixels, corruption, severity, frost="procedural")[-1]
            stored = io.BytesIO()
            Image.fromarray(shown.movedim(0, -1).numpy()).save(stored, "JPEG", quality=85)
            image = np.array(Image.open(stored))
        inputs.append(torch.from_numpy((image / 255 - MEAN) / STD).movedim(-1, 0).float())
    return functional.interpolate(
        torch.stack(inputs), (CROP, CROP), mode="bilinear", antialias=True
    )


@torch.no_grad()
def test_the_distance_between_the_logits_is_that_of_the_exported_network(root, out):
    classes = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(0))[:5].tolist()
    positions = [2 * kind + number for kind in classes for number in range(2)]
    model = network(out, "table1-ulfd")
    clean, shown = (model(images(root, positions, *at)) for at in ((), ("contrast", 3)))
    means = clean.double().numpy().reshape(5, 2, CLASSES).mean(1)
    between = np.mean([np.linalg.norm(a - b) for a, b in combinations(means, 2)])
    moved = np.linalg.norm((clean - shown).double().numpy(), axis=1).mean()
    numbers = figure(out, "figure1")["distance over distance between classes"]
    assert numbers["Ours"] == pytest.approx(moved / between, rel=1e-3)
    assert list(numbers) == ["Vanilla", "QualNet50", "Ours"]
    assert len(set(numbers.values())) == 3


@torch.no_grad()
def test_the_shallow_difference_is_that_of_the_vanilla_networks_and_of_ours(root, out):
    sample = list(range(0, 2 * CLASSES, 2))  # the first image of every class
    clean, blurred = (images(root, sample, *at) for at in ((), ("gaussian_blur", 5)))

    def relative(reference: Tensor, other: Tensor) -> float:
        return float((reference - other).abs().sum() / reference.abs().sum())

    torch.manual_seed(0)
    vanilla = SmallResNet(Network(), CLASSES).eval()  # what training begins with
    drifted = relative(vanilla.stem(clean), vanilla.stem(blurred))
    ddp = DeDriftingStep(SmallResNet(Network(), CLASSES)).model
    ddp.load_state_dict(weights(out, "table1-ddp"))
    undone = ddp.eval().inserted(vanilla.stem(blurred))
    ours = network(out, "shallow-shallow").stem
    numbers = figure(out, "figure2")
    for label, own in (
        ("DDP", relative(vanilla.stem(clean), undone)),
        ("Ours", relative(ours(clean), ours(blurred))),
    ):
        assert numbers[label]["vanilla"] == pytest.approx(drifted, rel=1e-3)
        assert numbers[label]["reconstructed"] == pytest.approx(own, rel=1e-3)
        assert abs(own / drifted - 1) > 3e-3


@torch.no_grad()
def test_the_mean_theta_is_that_of_the_exported_uem(root, out):
    model = network(out, "table1-ulfd")
    uem = UEM.official(model.fc.in_features).eval()
    uem.load_state_dict(weights(out, "table1-ulfd", "uem"))
    body = nn.Sequential(model.stem, model.layer1, model.layer2, model.layer3)
    sample = list(range(0, 2 * CLASSES, 2))
    labels = torch.arange(CLASSES)
    numbers = figure(out, "figure4")
    for corruption, severity in (("spatter", 1), ("motion_blur", 5)):
        feature = body(images(root, sample, corruption, severity))
        sigma = uem(feature).double()
        found = numbers[f"{corruption} {severity}"]
        assert found["theta"] == pytest.approx(float((sigma / 2).exp().mean()), rel=1e-4)
        assert found["variance"] == pytest.approx(float(sigma.exp().mean()), rel=1e-4)
        right = model.fc(feature.mean((2, 3))).argmax(1) == labels
        assert found["top1"] == pytest.approx(float(right.double().mean()))


@pytest.mark.parametrize(("name", "shown"), [("figure1", 10), ("figure2", 8), ("figure4", 8)])
def test_a_figure_names_its_images_and_nothing_else_was_evaluated(out, name, shown):
    page = (out / name / "page.md").read_text()
    assert EXPERIMENTS[name].title in page
    data = "val, corrupted on the fly, JPEG 85, generated frost, SUBSET of"
    assert f"Drawn from {data} {shown} of 16 images, at 32 x 32 pixels" in page
    said = figure(out, name)
    assert said["label"] == f"{data} {shown} of 16 images"
    assert said["data"]["subset"] == shown
    assert said["data"]["clean"]["files_sha256"]
    assert said["preprocessing"] == {"mean": list(MEAN), "std": list(STD), "input_size": CROP}
    (picture,) = (out / name).glob("*.png")
    assert f"]({picture.name})" in page
    assert not list(out.glob("*/evaluation"))


def test_images_that_are_missing_are_said_before_the_first_step(root, tmp_path, capsys):
    (tmp_path / "train").symlink_to(root / "train")
    command = ["--experiment", "figure4", *SMALL, "--data-root", str(tmp_path)]
    assert main([*command, "--out", str(tmp_path / "runs")]) == 1
    assert "needs clean images in" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_network_without_a_uem_is_refused(out, tmp_path):
    (run,) = parse(["--experiment", "figure4", *SMALL])
    step = resolve(run).make_step(CLASSES)
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / export.MODEL).write_bytes(
        (out / "table1-ulfd-resnet8-seed-0/export" / export.MODEL).read_bytes()
    )
    with pytest.raises(RunError, match=r"has no UEM \(uem.safetensors\).* Train again"):
        export.read(folder, step)


def test_a_figure_is_drawn_when_it_is_asked_for_alone(monkeypatch, tmp_path):
    """A table evaluates its rows; no figure of the same networks is drawn beside it."""
    done = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(imagenet_tables.imagenet, "execute", done.append)
    assert main(["--experiment", "table6a", *SMALL]) == 0
    assert all(run.evaluate for run in done)
    assert not list(tmp_path.iterdir())
