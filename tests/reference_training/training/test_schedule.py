"""Optimisers, rates and the recipes of the rows, against torch's own schedulers and the sources."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, StepLR

from reference_training.config import RECIPES, Recipe
from reference_training.experiments.job import resolve
from reference_training.methods.trainings import training
from reference_training.paper.experiments import ROWS
from reference_training.paper.recipes import BASELINES, OWN, iterations
from reference_training.run import main, parse
from reference_training.training.schedule import OPTIMIZERS, recipe_schedule


def rates(recipe, steps):
    schedule = recipe_schedule(recipe)
    return [schedule.rate(at) for at in range(steps)]


def torchs(scheduler, steps):
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def sgd(rate):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)


def test_rates_are_torchs():
    steps = replace(BASELINES["urie"].recipe, iterations=60, warm_up=0.0)
    assert rates(steps, 60) == pytest.approx(torchs(StepLR(sgd(1e-4), 10), 60))
    half = Recipe(iterations=40, learning_rate=0.1, decay="cosine")
    assert rates(half, 40) == pytest.approx(torchs(CosineAnnealingLR(sgd(0.1), 40), 40))
    warm = Recipe(iterations=100, learning_rate=0.1, milestones=(), warm_up=0.08)
    expected = torchs(LinearLR(sgd(0.1), start_factor=1 / 8, total_iters=7), 20)
    assert rates(warm, 20) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, "optimizer is 'lion'; use one of adam, sgd, nesterov"),
        ({"decay": "linear"}, "decay is 'linear'; use one of steps, cosine"),
        ({"warm_up": 1.0}, "warm_up is 1.0, but must be a fraction"),
    ],
)
def test_wrong_schedules_are_refused(change, message, capsys):
    with pytest.raises(ValueError, match=message):
        recipe_schedule(replace(Recipe(), **change))
    ((name, value),) = change.items()
    given = [f"--recipe.{name.replace('_', '-')}", str(value)]
    assert main(["--experiment", "table5/ulfd", *given, "--plan"]) == 1
    assert main(["--dataset", "digits", *given]) == 1
    assert capsys.readouterr().err.count(message) == 2


@pytest.mark.parametrize("name", ["sgd", "nesterov"])
def test_momentum_is_its_closed_form(name):
    """v ← 0.9 v + g + wd·w;  w ← w − rate·v, Nesterov's w ← w − rate·(g + wd·w + 0.9 v)."""
    weight = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    optimizer = OPTIMIZERS[name].make([weight], lr=0.1, weight_decay=0.01, fused=None)
    w, v = weight.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for step in range(3):
        weight.grad = torch.tensor([1.0, 0.5], dtype=torch.float64) * (step + 1)
        gradient = weight.grad + 0.01 * w
        v = 0.9 * v + gradient
        w = w - 0.1 * (gradient + 0.9 * v if name == "nesterov" else v)
        optimizer.step()
        torch.testing.assert_close(weight.detach(), w, rtol=1e-14, atol=0)
    (state,) = optimizer.state_dict()["state"].values()
    assert len(state) == OPTIMIZERS[name].moments


def test_the_recipes_are_their_authors():
    """Figures that the sources print: epochs, batches, rates at the end."""
    assert iterations(90, 256) == 90 * 5_005  # AugMix: torch's own count of batches
    assert iterations(30, 1024, sets=3) == 30 * 3_754
    assert iterations(60, 64) == 60 * 20_019
    for name, first, last in (
        ("urie", 1e-4, 1e-9),
        ("augmix", 0.1, 1e-3),
        ("kd_vid", 1e-4, 1e-6),
        ("i_revnet", 0.1, 1e-4),
    ):
        schedule = recipe_schedule(BASELINES[name].recipe)
        assert schedule.rate(0) == first
        assert schedule.rate(schedule.iterations - 1) == pytest.approx(last)
    assert set(BASELINES) <= {row.training for row in ROWS.values()}


@pytest.mark.parametrize("recipe", [OWN, *RECIPES])
@pytest.mark.parametrize("row", ROWS)
def test_every_row_knows_whose_recipe_it_has(row, recipe):
    run = parse(["--experiment", row, "--recipe", recipe])
    alike = run.recipe == parse(["--experiment", row]).recipe
    assert (OWN in resolve(run).recipes) == alike
    assert recipe in resolve(run).recipes or ROWS[row].training == "vanilla"
    assert resolve(replace(run, recipe=replace(run.recipe, learning_rate=0.5))).recipes == [
        "changed"
    ]
    if training(ROWS[row].training).changes.keys() & {"distillation_weight", "layer"}:
        assert run.recipe != RECIPES["shared"]  # what the row is about stays
