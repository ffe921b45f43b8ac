"""The page shows each image once, in the order of θ, and no file's name is HTML."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from examples import rank_folder
from reference_training.data import load
from reference_training.methods.trainings import training
from reference_training.networks.resnet import ResNet
from reference_training.presets import PRESETS
from reference_training.runtime.files import write_json
from reference_training.training.checkpoint import Checkpoint
from reference_training.training.record import plain
from reference_training.uncertainty.meter import load_meter
from reference_training.uncertainty.ranking import rank
from tests.examples.checks import assert_program
from tests.reference_training.fabricated import write_checkpoint


@pytest.fixture
def model(tmp_path):
    """A training's folder with random weights."""
    torch.manual_seed(0)
    run = PRESETS["digits"]
    step = training("ulfd").make_step(ResNet(run.network, 10), run.recipe, run.uem)
    tensors = {f"step.{name}": value for name, value in step.state_dict().items()}
    write_json(tmp_path / "run.json", {"config": plain(run)})
    write_checkpoint(tmp_path / "seed-0/ulfd", Checkpoint(1, tensors, {}))
    return tmp_path / "seed-0/ulfd"


def test_both_ends_of_the_ranking(model, tmp_path):
    folder, out = tmp_path / "images", tmp_path / "page.html"
    folder.mkdir()
    images = load("digits").test_images[:7].movedim(1, -1).numpy()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"<b>{number}.png")
    (folder / "broken.png").write_bytes(b"")
    rank_folder.main(model, folder, out, images=2)
    page = out.read_text(encoding="utf-8")
    found = re.findall(r"&lt;b&gt;(\d)\.png", page)
    order = [row["file"][3] for row in rank(load_meter(model), folder)[:-1]]
    assert found == [*order[:2], *order[:-3:-1]]
    assert "<b>" not in page
    contents = re.findall(r'base64,([^"]+)"', page)
    for content, number in zip(contents, found, strict=True):
        shown = Image.open(io.BytesIO(base64.b64decode(content)))
        difference = np.asarray(shown.convert("L"), float) - images[int(number)][..., 0]
        assert np.abs(difference).mean() < 10  # what JPEG does to a digit
    rank_folder.main(model, folder, out, images=5)
    assert len(re.findall("<figure", out.read_text(encoding="utf-8"))) == 7


def test_it_is_a_program_and_on_the_page(capsys):
    assert_program(rank_folder)
