"""The whole loop: resumed it is the uninterrupted one, and what it saves is what it trained."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models.resnet import BasicBlock, ResNet

from examples import your_loop

PAGE = Path(__file__).resolve().parents[2] / "docs/quickstart/your_loop.md"
SIZE = {"images": 72, "batch_size": 24}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(
        your_loop, "resnet18", lambda num_classes: ResNet(BasicBlock, [1, 1, 1, 1], num_classes)
    )


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    network = your_loop.main(epochs=2, out=whole, **SIZE)
    exported = torch.export.load(whole / "model.pt2").module()
    monkeypatch.setattr(torch.export, "export", lambda *network, **options: None)  # once is enough
    monkeypatch.setattr(torch.export, "save", lambda *program: None)
    your_loop.main(epochs=1, out=parts, **SIZE)
    between = load_file(parts / "model.safetensors")
    your_loop.main(epochs=2, out=parts, **SIZE)
    weights, resumed = (load_file(out / "model.safetensors") for out in (whole, parts))
    assert weights.keys() == resumed.keys() == network.state_dict().keys()
    for name, weight in weights.items():
        assert torch.equal(weight, resumed[name]), name
    assert not torch.equal(weights["fc.weight"], between["fc.weight"])

    images = torch.rand(5, 3, 32, 32)
    torch.testing.assert_close(exported(images), network(images))

    state = torch.load(whole / "checkpoint.pt", weights_only=True)["step"]
    teacher = state["frozen.fc.weight"]
    torch.manual_seed(0)
    assert torch.equal(teacher, ResNet(BasicBlock, [1, 1, 1, 1], 10).fc.weight)
    assert not torch.equal(teacher, state["model.fc.weight"])


def test_a_pair_is_normalised_after_it_was_degraded(monkeypatch):
    seen = []
    monkeypatch.setattr(your_loop, "degraded", lambda images: seen.append(images) or 1 - images)
    clean, worse, _ = your_loop.Pairs(1)[0]
    assert seen[0].min() >= 0
    assert seen[0].max() <= 1
    torch.testing.assert_close(clean, (seen[0][0] - 0.5) / 0.25)
    torch.testing.assert_close(worse, (0.5 - seen[0][0]) / 0.25)


def test_the_page_shows_the_program():
    page = PAGE.read_text(encoding="utf-8")
    assert "../../examples/your_loop.py" in page
