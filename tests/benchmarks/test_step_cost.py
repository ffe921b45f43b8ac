"""What a step costs is counted as the closed forms say, here and in the published data."""

import itertools

import pytest
import torch

from benchmarks import measure, step_cost, tables
from benchmarks.problems import BOTH as BACKWARD
from benchmarks.problems import STEPS, StepProblem
from ulfd.uem import UEMSpec

ALONE, BOTH, MSE, DEFAULT, ELEMENT, FROZEN, OFFICIAL = step_cost.VARIANTS
TINY = StepProblem("ResNet-8", side=8, pairs=3)
FEATURES = {"ResNet-8": (64, 8), "ResNet-18": (512, 32), "ResNet-50": (2048, 32)}
"""Channels of the last feature, and the image's side over that of the feature."""
STEM = {"ResNet-8": 16 * 27 / 4, "ResNet-18": 64 * 147 / 4, "ResNet-50": 64 * 147 / 4}
"""Multiply-accumulates of the first convolution for a pixel of the image; its stride is 2."""


def check(problem: StepProblem, counts: dict[str, dict[str, int]]) -> None:
    channels, scale = FEATURES[problem.network]
    side, pairs = problem.side // scale, problem.pairs
    flops = {name: found["flops"] for name, found in counts.items()}
    more = {name: found["weights"] - counts[BOTH]["weights"] for name, found in counts.items()}
    assert flops[MSE] == flops[BOTH] == 2 * flops[ALONE]
    for name, spec in (
        (DEFAULT, UEMSpec(channels)),
        (ELEMENT, UEMSpec(channels, log_variance="element")),
        (OFFICIAL, UEMSpec.official(channels)),
    ):
        # Two operations each: forward, and backward for the inputs and for the weights.
        assert flops[name] - flops[BOTH] == 6 * pairs * spec.multiply_accumulates(side, side), name
        assert more[name] == spec.parameters()
    # Three times the forward pass, but for the gradient by the images.
    forward, stem = flops[FROZEN] - flops[DEFAULT], 2 * pairs * STEM[problem.network]
    assert flops[ALONE] == 3 * forward - stem * problem.side**2
    assert more[FROZEN] == more[DEFAULT]
    assert more[ALONE] == more[MSE] == 0
    kept = {name: found["kept_bytes"] for name, found in counts.items()}
    assert kept[ALONE] < kept[BOTH] == kept[MSE] < kept[DEFAULT] < kept[OFFICIAL]


def test_counts_are_the_closed_forms():
    made = {name: step_cost.prepared(TINY, name) for name in step_cost.VARIANTS}
    check(TINY, {name: step_cost.counted(*each) for name, each in made.items()})


def test_the_published_counts_are_the_closed_forms():
    results = tables.load("step_cost_cpu.json")
    assert results["reference"] == BOTH
    rows = results["rows"]
    assert len(rows) == len(STEPS)
    for problem, row in zip(STEPS, rows, strict=True):
        assert problem == StepProblem(row["network"], row["side"], row["pairs"])
        assert list(row["variants"]) == list(step_cost.VARIANTS)
        check(problem, row["variants"])


def test_the_pages_numbers_are_the_datas():
    page = (tables.HERE.parent / "docs" / "cost.md").read_text(encoding="utf-8")
    more: dict[str, list[float]] = {}
    for row in tables.load("step_cost_cpu.json")["rows"]:
        for name, found in row["variants"].items():
            ratio = found["flops"] / row["variants"][BOTH]["flops"]
            more.setdefault(name, []).append(100 * (ratio - 1))
    assert f"takes {min(more[DEFAULT]):.1f} to {max(more[DEFAULT]):.1f} % more" in page
    assert f"official** {min(more[OFFICIAL]):.0f} to {max(more[OFFICIAL]):.0f} %." in page
    pair, plain = (row["variants"][name]["flops"] / row["pairs"] for name in (DEFAULT, BOTH))
    assert row["network"] == "ResNet-50"
    assert f"256 × {pair / 1e9:.1f} GFLOP" in page
    assert f"less than {256 * pair / 989e12 * 1e3:.1f} ms" in page
    assert f"{plain / 6e9:.1f} GFLOP for ResNet-50" in page
    for spec in (UEMSpec(2048), UEMSpec.official(2048)):
        assert f"{spec.parameters() * 16 / 1e6:.0f} MB" in page
    times = {
        gpu["sigma"]: gpu["seconds"]
        for gpu in tables.load("gpu_h100.json")["rows"]
        if (gpu["dtype"], gpu["task"], gpu["implementation"])
        == ("bfloat16", BACKWARD, "fused, recomputed")
    }
    assert f"in {1e3 * times['sample']:.2f} ms with a σ" in page
    assert f"in {1e3 * times['full']:.2f} ms with one" in page


@pytest.mark.parametrize("variant", step_cost.VARIANTS)
def test_a_step_trains_all_that_it_counts(variant):
    module, loss = step_cost.prepared(TINY, variant)
    first = next(module.parameters())
    before = first.detach().clone()
    step_cost.training(module, loss)()
    assert not torch.equal(before, first)
    for weight in module.parameters():
        assert weight.requires_grad == (weight.grad is not None)


def test_another_clock_is_the_one_that_is_read():
    ticks = itertools.count()
    times = measure.by_turns({"one": int, "other": int}, lambda: float(next(ticks)))
    assert times == {"one": [1.0] * measure.FEWEST, "other": [1.0] * measure.FEWEST}
