"""A run and an export with random weights, and a folder of images."""

import pytest
import torch
from PIL import Image

from reference_training.config import ImageNetRun, Network, SmallRun, UEMOptions
from reference_training.data import load
from reference_training.methods.trainings import training
from reference_training.networks.resnet import ResNet
from reference_training.runtime.files import write_json
from reference_training.training import export
from reference_training.training.checkpoint import Checkpoint
from reference_training.training.record import plain
from tests.reference_training.fabricated import write_checkpoint

SMALL = SmallRun(
    dataset="digits",
    network=Network(widths=(4, 6, 8)),
    uem=UEMOptions(width=3, blocks=2, output="linear"),
)


def trained(name, seed=0):
    """The step of a training whose weights are all random, batch normalisation's too."""
    torch.manual_seed(seed)
    step = training(name).make_step(ResNet(SMALL.network, 10), SMALL.recipe, SMALL.uem)
    for key, value in step.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_()
        elif key.endswith("running_var"):
            value.uniform_(0.5, 2)
    return step.eval()


@pytest.fixture
def run(tmp_path):
    """A run's folder with trainings of one iteration, by name; and what makes more of them."""

    def add(name):
        step = trained(name)
        tensors = {f"step.{key}": value for key, value in step.state_dict().items()}
        write_checkpoint(tmp_path / "seed-0" / name, Checkpoint(1, tensors, {}))
        return tmp_path / "seed-0" / name, step

    write_json(tmp_path / "run.json", {"config": plain(SMALL), "dataset": {"name": "digits"}})
    return add


@pytest.fixture
def exported(tmp_path):
    """The export of a full-scale training with a crop smaller than its resize, and its step."""
    paper = ImageNetRun(arch="resnet8", resize=40, crop=32, uem=SMALL.uem, out=tmp_path / "paper")
    torch.manual_seed(1)
    step = training("ulfd").make_step(ResNet(Network(), 7), paper.recipe, paper.uem).eval()
    about = {
        "dataset": {"train": 5, "classes": 7, "weights_sha256": "random"},
        "frost": "none",
        "git": None,
        "command": "python",
    }
    heading = export.Titles("ulfd", "ULFD", "Ours")
    export.write(paper.folder / "export", step, paper, about, heading)
    return paper.folder / "export", step


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Ten images of the digits' size, two of another, one broken, and no image."""
    root = tmp_path_factory.mktemp("photographs")
    (root / "deep/er").mkdir(parents=True)
    for number, image in enumerate(load("digits").test_images[:10]):
        Image.fromarray(image.movedim(0, -1).numpy()).save(root / f"deep/{number}.png")
    Image.new("RGB", (50, 40), (200, 30, 30)).save(root / "deep/er/large.jpg")
    Image.new("L", (8, 9), 99).save(root / "<b>small & dark.webp")
    (root / "broken.png").write_bytes((root / "deep/0.png").read_bytes()[:100])
    (root / "notes.txt").write_text("no image")
    return root
