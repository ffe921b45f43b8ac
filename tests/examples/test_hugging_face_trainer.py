"""The Trainer trains by Eq. 10 without a network; what is saved is a classifier of transformers."""

import socket
import sys

import pytest
import torch
from torch.nn.functional import cross_entropy

pytest.importorskip("transformers", reason="needs pip install 'transformers[torch]>=5'")
pytest.importorskip("accelerate", reason="needs pip install 'transformers[torch]>=5'")

import transformers

from examples import hugging_face_trainer as example
from tests.examples.checks import assert_program, eq_9
from ulfd_torch import FeatureTap, SelfDistillation

pytestmark = pytest.mark.usefixtures("few_test_images")
LAYER = "network.resnet.encoder.stages.2"


class Checked(transformers.Trainer):
    """Computes the loss a second time, written out, and keeps the first weights."""

    def __init__(self, step, *arguments, **options):
        super().__init__(step, *arguments, **options)
        self.first = {name: weight.clone() for name, weight in step.named_parameters()}
        self.found, self.expected = [], []
        made.append(self)

    def compute_loss(self, model, inputs, *arguments, **options):
        assert isinstance(model, SelfDistillation)
        clean, degraded = inputs["clean"], inputs["degraded"]
        assert (clean != degraded).flatten(1).any(1).all()
        loss = super().compute_loss(model, inputs, *arguments, **options)  # σ has its start value
        self.found.append(loss.detach())
        with FeatureTap(model.model, LAYER) as tap, torch.no_grad():
            (y_hat, z_hat), (y, z) = (
                (model.model(inputs[name]), tap.take()) for name in ("degraded", "clean")
            )
            entropy = sum(cross_entropy(logits, inputs["labels"]) for logits in (y, y_hat))
            self.expected.append(entropy + 0.1 * eq_9(z_hat, z, model.uem(z_hat)))
        return loss


made: list[Checked] = []


def refuse(*_):
    raise AssertionError("the network was asked for")


def test_it_trains_and_saves_what_transformers_alone_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(example, "Trainer", Checked)
    out = tmp_path / "classifier"
    step = example.main(iterations=2, batch_size=4, out=out)

    (trainer,) = made
    assert len(trainer.found) == 2
    torch.testing.assert_close(trainer.found, trainer.expected, rtol=1e-4, atol=1e-5)
    assert trainer.args.weight_decay == 0  # what moves is moved by a gradient
    for name, weight in step.named_parameters():
        assert weight.isfinite().all(), name
        assert not torch.equal(weight, trainer.first[name]), name

    assert list(tmp_path.iterdir()) == [out]
    assert {file.name for file in out.iterdir()} == {"config.json", "model.safetensors"}
    for name in [name for name in sys.modules if name.split(".")[0].startswith("ulfd")]:
        monkeypatch.setitem(sys.modules, name, None)  # to import it is an ImportError
    deployed = transformers.AutoModelForImageClassification.from_pretrained(out)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(deployed(images).logits, step.model.eval()(images))


def test_it_is_a_program_and_on_the_page(capsys):
    assert_program(example)
