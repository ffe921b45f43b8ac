"""What the training step refuses or warns of, in words that say the remedy."""

from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tests.ulfd_torch.material import LABELS, images, network
from ulfd_torch import UEM, SelfDistillation, ULFDLoss


def test_wrong_use():
    with pytest.raises(ValueError, match="teacher is 'mean'"):
        SelfDistillation(network(), layer="2", teacher="mean")
    with pytest.raises(ValueError, match="batch_norm is 'sync'"):
        SelfDistillation(network(), layer="2", batch_norm="sync")
    clean, degraded = images()
    with pytest.raises(ValueError, match="pairs of one shape"):
        SelfDistillation(network(), layer="2")(clean, degraded[:2], LABELS)
    step = SelfDistillation(network(), layer="2", uem=UEM(6, variant="reconstruct"))
    with pytest.raises(ValueError, match="side_branch"):
        step(clean, degraded, LABELS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uem": 512}, r"uem is 512.*uem=UEM\(512\)"),
        ({"uem": UEM}, "uem is the class UEM"),
        ({"loss": 0.1}, r"loss is 0\.1.*ULFDLoss\(weight=0\.1\)"),
        ({"loss": nn.MSELoss()}, r"module MSELoss.*loss\(student, teacher, log_variance\)"),
        ({"layer": ["1", "2"]}, "multi_layer.py"),
    ],
)
def test_wrong_kinds(options, message):
    with pytest.raises(TypeError, match=message):
        SelfDistillation(network(), **{"layer": "2"} | options)


def test_images_that_the_model_cannot_take():
    step, (clean, degraded) = SelfDistillation(network(), layer="2"), images()
    with pytest.raises(TypeError, match=r"images are uint8.*\.float\(\) / 255"):
        step((255 * clean).to(torch.uint8), (255 * degraded).to(torch.uint8), LABELS)
    with pytest.raises(TypeError, match=r"degraded is a numpy\.ndarray.*torch\.as_tensor"):
        step(clean, degraded.numpy(), LABELS)
    with pytest.raises(TypeError, match="labels is a list"):
        step(clean, degraded, LABELS.tolist())
    with pytest.raises(RuntimeError, match="channels"):  # the model's own errors stay
        step(clean[:, :2], degraded[:, :2], LABELS)
    norm = nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="drop_last=True"):
        SelfDistillation(norm, layer="1")(clean[:1], degraded[:1], LABELS[:1])


def test_no_gradient_through_the_layer_is_an_error():
    clean, degraded = images()

    class Checkpointed(nn.Module):
        def __init__(self, use_reentrant):
            super().__init__()
            self.body, self.head = network()[:3], network()[3:]
            self.use_reentrant = use_reentrant

        def forward(self, x):
            return self.head(checkpoint(self.body, x, use_reentrant=self.use_reentrant))

    step = SelfDistillation(Checkpointed(True), layer="body.1")
    with pytest.raises(RuntimeError, match=r"no gradient reaches.*'body\.1'.*use_reentrant=False"):
        step(clean.requires_grad_(), degraded.requires_grad_(), LABELS)
    with torch.no_grad():  # nothing is trained
        step(clean, degraded, LABELS)
    right = SelfDistillation(Checkpointed(False), layer="body.1")
    right(clean, degraded, LABELS).total.backward()
    assert right.model.body[0].weight.grad.abs().sum() > 0
    for parameter in right.model.body.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(RuntimeError, match="all that it depends on is frozen"):
        right(clean.detach(), degraded.detach(), LABELS)


class Named(NamedTuple):
    logits: torch.Tensor
    auxiliary: torch.Tensor | None


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: Named(y, None),
        lambda y: SimpleNamespace(loss=None, logits=y),
        lambda y: (None, y, 2 * y),
        lambda y: [y],
    ],
)
def test_logits_are_found_in_what_a_model_returns(wrap):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return wrap(self.inner(x))

    expected = SelfDistillation(network(), layer="2")(*images(), LABELS).total
    found = SelfDistillation(Wrapped(), layer="inner.2")(*images(), LABELS).total
    assert found == expected


def test_a_model_without_logits_is_refused():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return {"hidden": self.inner(x)}

    with pytest.raises(TypeError, match=r"returns a dict without logits.*\.logits"):
        SelfDistillation(Hidden(), layer="inner.2")(*images(), LABELS)


def test_a_uem_larger_than_its_network_is_warned_of(recwarn):
    model = network()
    with pytest.warns(UserWarning, match=r"10,440 weights, more than .* 831; UEM\(6\).* has 97"):
        SelfDistillation(model, layer="2", uem=UEM.official(6, width=12))
    recwarn.clear()
    for uem in (UEM(6), UEM.official(6, blocks=1), nn.Conv2d(6, 600, 1), None):
        SelfDistillation(model, layer="2", uem=uem)
    lazy = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.LazyLinear(3))
    SelfDistillation(lazy, layer="0", uem=UEM.official(6))
    assert not recwarn


@pytest.mark.parametrize(
    "labels",
    [
        torch.rand(4),
        LABELS.int(),
        LABELS[:3],
        LABELS[:, None],
        torch.tensor([0, 1, 2, 3]),
        torch.tensor([0, 1, 2, -1]),
        functional.one_hot(LABELS, 3),
    ],
    ids=["float", "int32", "few", "(B, 1)", "too large", "negative", "one-hot"],
)
def test_labels_that_the_cross_entropy_does_not_take(labels):
    step = SelfDistillation(network(), layer="2")
    with pytest.raises(ValueError, match=r"labels are .*class indices from 0 to 2, int64 \(4,\)"):
        step(*images(), labels)


def test_another_task_loss_speaks_for_itself():
    step = SelfDistillation(network(), layer="2", task_loss=nn.BCEWithLogitsLoss())
    with pytest.raises(ValueError, match="Target size"):
        step(*images(), LABELS)


def test_no_frozen_teacher_of_a_network_without_weights():
    lazy = nn.Sequential(nn.LazyConv2d(6, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"'0.weight' has no value yet; run the model"):
        SelfDistillation(lazy, layer="1", teacher="frozen")
    lazy(images()[0])
    step = SelfDistillation(lazy, layer="1", teacher="frozen")
    assert torch.equal(step.frozen[0].weight, lazy[0].weight)


def test_a_named_loss_has_a_uem_where_it_has_a_sigma():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())
    with pytest.raises(ValueError, match=r"needs log_variance.* Here: give uem=UEM\(channels\)"):
        SelfDistillation(model, layer="0", uem=None, loss=ULFDLoss.named("gaussian_nll"))
    with pytest.raises(ValueError, match=r"'mse' has no σ.* Here: leave uem out"):
        SelfDistillation(model, layer="0", uem=UEM(8), loss=ULFDLoss.named("mse"))
    SelfDistillation(model, layer="0", uem=None, loss=ULFDLoss.named("mse")).close()
