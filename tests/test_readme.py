"""The README's code runs as it stands there, and trains."""

import re
from pathlib import Path

import torch

from ulfd_torch import ULFDLoss

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_the_training_step_trains_a_resnet18():
    torch.manual_seed(0)
    names: dict = {}
    exec(BLOCKS[0], names)
    clean = torch.rand(8, 3, 32, 32)
    degraded = clean + 0.1 * torch.randn_like(clean)
    labels = torch.arange(8)
    before = [weight.detach().clone() for weight in names["step"].parameters()]
    losses = [names["train"](clean, degraded, labels).item() for _ in range(6)]
    assert losses[-1] < losses[0]
    moved = [
        not torch.equal(old, new)
        for old, new in zip(before, names["step"].parameters(), strict=True)
    ]
    assert all(moved)  # the network and the UEM alike


def test_the_loss_alone():
    (line,) = re.findall(r"The loss alone: `(.*?)`", README.read_text())
    features = torch.rand(3, 2, 4, 5, 5)
    names = dict(zip(("student", "teacher", "log_variance"), features, strict=True))
    loss = eval(line, {"ULFDLoss": ULFDLoss, **names})
    student, teacher, sigma = features
    expected = ((-sigma).exp() * (teacher - student) ** 2 + 2 * sigma).mean()
    torch.testing.assert_close(loss, expected)


def test_the_readme_is_short():
    assert len(README.read_text().split()) <= 700
