"""The profile of a step: its clock against a known time, and its data against the model."""

import json
import time
from pathlib import Path

import pytest
import torch
from reference_training.experiments.roofline import Device

from benchmarks import cpu_data_sheet, step_profile
from benchmarks.timed import Timed
from reference_training.experiments import plan

DATA = Path(step_profile.__file__).parent / "results" / "step_profile_cpu.json"
PROFILES = json.loads(DATA.read_text())["profiles"]


def work(seconds: float) -> None:
    started = time.process_time()
    while time.process_time() - started < seconds:
        pass


class Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        work(0.03)
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        work(0.05)
        return 2 * gradient


class Layer(torch.nn.Module):
    def forward(self, x):
        return Slow.apply(x)


def test_a_module_is_timed_alone():
    """Of three that take as long, forward and backward, and without changing the gradient."""
    layers = torch.nn.Sequential(Layer(), Timed(Layer()), Layer())
    x = torch.ones(3, requires_grad=True)
    layers(x).sum().backward()
    assert x.grad.tolist() == [8, 8, 8]
    assert 0.03 <= layers[1].forward_seconds < 0.05
    assert 0.05 <= layers[1].backward_seconds < 0.07


def test_a_small_step_is_profiled(monkeypatch):
    monkeypatch.setattr(step_profile, "ROUNDS", 1)
    monkeypatch.setattr(cpu_data_sheet, "CACHES", 1 << 20)
    found = step_profile.profile("--arch resnet8 --crop 32 --resize 36", pairs=2)
    seconds = found["seconds"]
    assert seconds["step"] > seconds["forward and backward"] > seconds["UEM backward"] > 0
    assert 0 < found["shares"]["loss"]["measured"] < found["shares"]["UEM"]["measured"] < 1
    assert all(value > 0 for value in found["device"].values())


@pytest.mark.parametrize("entry", [PROFILES[0], PROFILES[-1]], ids=["first", "last"])
def test_the_data_holds_what_the_model_predicts_today(entry):
    """But for what another version of torch makes one operation of, or two."""
    run = step_profile.paper_run(entry["changes"])
    predicted = plan.cost(run, entry["pairs"]).seconds(Device(**entry["device"]))
    step = sum(predicted.values())
    assert predicted | {"step": step} == pytest.approx(entry["predicted_seconds"], rel=0.02)


@pytest.mark.parametrize("part", ["UEM", "loss"])
def test_the_data_agrees_with_the_model(part):
    """Shares and whole steps were measured as they were predicted."""
    most = {"UEM": 0.1, "loss": 0.25}[part]
    for entry in PROFILES:
        share = entry["shares"][part]
        assert share["predicted"] == pytest.approx(share["measured"], rel=most + 0.005)
        step = entry["seconds"]["step"]
        assert entry["predicted_seconds"]["step"] == pytest.approx(step, rel=0.1)
