"""Every method's step, and the training loop around it."""

import copy
import json
import math
import re
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from reference_training.config import SHORT, Network, Recipe, UEMOptions
from reference_training.data import load
from reference_training.data.batch import Batch
from reference_training.data.pairs import Pairs
from reference_training.experiments import small, stages
from reference_training.methods import METHODS
from reference_training.methods.base import Step, StepResult
from reference_training.methods.trainings import label, training
from reference_training.networks.i_revnet import IRevNet
from reference_training.networks.resnet import ResNet, describe
from reference_training.presets import PRESETS
from reference_training.runtime.errors import RunError
from reference_training.runtime.stop import Interrupted
from reference_training.training import checkpoint, loop
from reference_training.training.schedule import Schedule, cosine, stepwise
from ulfd import UEMSpec


def model(seed=0):
    torch.manual_seed(seed)
    return ResNet(Network(), 10)


def batch(second_views=1):
    generator = torch.Generator().manual_seed(1)
    clean, degraded = torch.randn(2, 16, 3, 32, 32, generator=generator)
    if second_views > 1:
        degraded = torch.randn(16, second_views, 3, 32, 32, generator=generator)
    return Batch(clean, degraded, torch.arange(16) % 10)


def test_the_network_is_a_cifar_resnet():
    twenty = ResNet(Network(blocks=3, stem_stride=1), 10)
    assert describe(Network(blocks=3, stem_stride=1)).startswith("ResNet-20")
    # He et al. 2016, Table 6: 0.27 M parameters; 1×1 shortcuts add 2,752
    assert 0.27e6 < sum(weight.numel() for weight in twenty.parameters()) < 0.28e6
    assert twenty(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_learns(name):
    network = model()
    step = METHODS[name].make_step(network, SHORT, UEMOptions())
    trains_another = isinstance(step.model, IRevNet)
    assert trains_another == (name == "i_revnet")
    assert trains_another or network in step.model.modules()
    assert (step.uem is not None) == name.startswith("ulfd")
    optimizer = torch.optim.Adam(step.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        result = step(batch(METHODS[name].second_views))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        losses.append(result.loss.item())
    assert losses[-1] < losses[0]
    trained = [weight for weight in step.parameters() if weight.requires_grad]
    assert trained
    for weight in step.parameters():
        assert (weight.grad is not None) == weight.requires_grad


def test_cross_entropy_is_eq_10_without_distillation():
    pairs = batch()
    ours = METHODS["cross_entropy"].make_step(model(), SHORT, UEMOptions())(pairs).loss
    twin = model()
    degraded = functional.cross_entropy(twin(pairs.degraded), pairs.labels)
    clean = functional.cross_entropy(twin(pairs.clean), pairs.labels)
    torch.testing.assert_close(ours, clean + degraded)
    none = Recipe(distillation_weight=0.0)
    without = METHODS["feature_distillation"].make_step(model(), none, UEMOptions())(pairs)
    torch.testing.assert_close(ours, without.loss)


def test_the_recipe_reaches_the_loss():
    pairs = batch()
    for weight in (0.1, 0.4):
        step = METHODS["ulfd"].make_step(model(), Recipe(distillation_weight=weight), UEMOptions())
        logs = step(pairs).logs
        twin = copy.deepcopy(step)
        twin.loss.weight = 1.0
        torch.testing.assert_close(logs["distillation"], weight * twin(pairs).logs["distillation"])
    tight = METHODS["ulfd"].make_step(model(), Recipe(clamp=(-1e-3, 0.0)), UEMOptions())(pairs)
    assert tight.logs["log_variance_clamped"] > 0.1


def test_gamma_0_trains_the_network_as_the_mse_and_a_uem_beside_it():
    gradients = {}
    for name in ("feature_distillation@lambda=0.3", "ulfd@gamma=0,lambda=0.3,uem=default"):
        network = model()
        step = training(name).make_step(network, SHORT, UEMOptions())
        step(batch()).loss.backward()
        gradients[name] = [weight.grad for weight in network.parameters()]
    for mse, faithful in zip(*gradients.values(), strict=True):
        torch.testing.assert_close(faithful, mse, rtol=1e-4, atol=1e-7)
    assert max(gradient.abs().max() for gradient in mse) > 1e-3
    assert any(weight.grad.abs().max() > 0 for weight in step.uem.parameters())
    assert label("ulfd@gamma=0,uem=default") == "+ uncertainty (ULFD), γ 0, default UEM"


def test_the_uem_can_be_chosen_by_the_training_s_name():
    one = training("ulfd@uem.structure=pointwise")
    step = one.make_step(model(), SHORT, UEMOptions())
    assert step.uem.spec == UEMSpec.official(64, structure="pointwise")
    assert UEMOptions().spec(64) == UEMSpec.official(64)
    losses = []
    optimizer = torch.optim.Adam(step.parameters(), lr=1e-3)
    for _ in range(4):
        optimizer.zero_grad()
        loss = step(batch()).loss
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < losses[0]
    assert step.uem.head.weight.grad.abs().max() > 0
    run = replace(PRESETS["digits"], methods=("ulfd@uem.structure=pointwise,uem.blocks=2",))
    with pytest.raises(RunError, match="'pointwise' has no width, blocks"):
        small.check(run)


def test_schedules():
    paper = Schedule(40_000, 1e-3, stepwise(Recipe().milestones))
    rates = [paper.rate(at) for at in (0, 4_999, 5_000, 12_499, 12_500, 25_000, 39_999)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-6, 1e-6])
    assert [cosine(x) for x in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.5, 0.0])


class Counter:
    """Stands for the link to the parent process; asks for an end after some iterations."""

    def __init__(self, end_after=math.inf):
        self.count, self.skipped, self.end_after = 0, 0, end_after
        self.stop = self

    def is_set(self):
        return self.count >= self.end_after

    def advance(self, iterations=1):
        self.count += iterations

    def skip(self, iterations):
        self.skipped += iterations


def train(folder, link, step=None, iterations=10):
    torch.manual_seed(0)
    step = step or METHODS["ulfd"].make_step(model(), SHORT, UEMOptions())
    pairs = Pairs(load("digits"), batch_size=16, seed=0, second="corruption", frost="procedural")
    schedule = Schedule(iterations, 1e-3, stepwise((0.5,)))
    loop.TrainingLoop(step, pairs, schedule, folder=folder, checkpoint_every=4, link=link).train()
    return step


def small_uem_step():
    """ULFD with the default UEM, which the first iteration gives its start value."""
    torch.manual_seed(0)
    options = UEMOptions(structure="pointwise", output="linear", global_skip=False)
    step = METHODS["ulfd"].make_step(model(), SHORT, replace(options, log_variance="sample"))
    assert step.uem.spec == UEMSpec(64)
    return step


@pytest.mark.parametrize("make", [lambda: None, small_uem_step], ids=["official", "default"])
def test_stopped_at_any_iteration_it_continues_bit_by_bit(tmp_path, make):
    whole = train(tmp_path / "whole", Counter(), make()).state_dict()
    for end in (1, 5, 9):
        folder = tmp_path / str(end)
        with pytest.raises(Interrupted):
            train(folder, Counter(end), make())
        link = Counter()
        resumed = train(folder, link, make()).state_dict()
        assert (link.skipped, link.count) == (end, 10 - end)
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)
        log = (folder / "metrics.jsonl").read_text()
        assert log == (tmp_path / "whole" / "metrics.jsonl").read_text()
        assert json.loads(log.splitlines()[-1])["iteration"] == 10


def test_the_log_says_once_where_sigma_weights_the_wrong_way(tmp_path, capsys):
    train(tmp_path / "default", Counter(), small_uem_step(), iterations=20)
    assert "official" not in capsys.readouterr().out
    train(tmp_path / "official", Counter(), iterations=20)
    out = capsys.readouterr().out
    assert out.count("iteration 10: σ falls where the error grows") == 1
    assert out.count("UEM.official(C, global_skip=False)") == 1


class Exploding(Step):
    """A loss that is not finite after some iterations, or whose gradient alone is not."""

    def __init__(self, model, healthy, factor):
        super().__init__(model)
        self.healthy, self.factor = healthy, factor

    def forward(self, batch):
        self.healthy -= 1
        loss = self.model(batch.clean).square().mean()
        if self.healthy < 0:
            loss = loss * self.factor
        if self.healthy < 0 and self.factor == 1.0:
            loss.register_hook(lambda gradient: gradient * math.nan)
        return StepResult(loss, {"clean": loss})


@pytest.mark.parametrize(
    ("healthy", "factor", "what"),
    [(9, math.inf, "the loss.*iteration 10"), (5, math.inf, "the loss.*iteration 6"),
     (5, 1.0, "the loss.*iteration 7"), (7, 1.0, "a weight.*iteration 8")],
)  # fmt: skip
def test_what_is_not_finite_ends_the_run_and_is_never_saved(tmp_path, healthy, factor, what):
    with pytest.raises(RunError, match=rf"(?s){what}.*--recipe.learning-rate.*intact"):
        train(tmp_path, Counter(), Exploding(model(), healthy, factor))
    kept = checkpoint.read_latest(tmp_path)
    assert kept.iteration == (8 if healthy == 9 else 4)
    assert all(tensor.isfinite().all() for tensor in kept.tensors.values())
    told = json.loads((tmp_path / "diverged.json").read_text())
    assert str(told["iteration"]) == re.search(r"iteration (\d+)", what)[1]
    assert len(told["batch"]["samples"]) == 16


def test_a_loss_that_explodes_ends_the_run_too(tmp_path):
    with pytest.raises(RunError, match=r"exploded at iteration 6"):
        train(tmp_path, Counter(), Exploding(model(), 5, 1e9))


def test_a_stage_that_was_deleted_is_named(tmp_path):
    run = PRESETS["digits"].__class__(dataset="digits", out=tmp_path)
    with pytest.raises(RunError, match=r"seed-0/vanilla has no checkpoint"):
        stages._weights(run, 0, "vanilla", "step.")
