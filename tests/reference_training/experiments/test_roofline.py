"""The model of a step's time: operations in closed form, and against torch's own counter."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reference_training.experiments.roofline import (
    GPUS,
    LOSS,
    TRANSPOSED,
    Device,
    Operation,
    Recorder,
)

DEVICE = Device(throughput=1e9, transposed=1e8, bandwidth=1e6, call=1.0, loss_call=5.0)


@pytest.mark.parametrize(("operation", "seconds"), [
    (Operation("convolution", flops=3 * 10**9, moved=10**6), 3 + 1),
    (Operation("convolution", flops=3 * 10**9, moved=4 * 10**6), 4 + 1),
    (Operation(TRANSPOSED, flops=3 * 10**9, moved=0), 30 + 1),
    (Operation(LOSS, flops=0, moved=2 * 10**6), 2 + 5),
    (Operation("add", flops=0, moved=0), 1),
])  # fmt: skip
def test_the_longer_of_arithmetic_and_traffic_and_a_call(operation, seconds):
    assert operation.seconds(DEVICE) == pytest.approx(seconds)


def recorded(function):
    with Recorder() as recorder:
        function()
    return recorder.operations


def test_every_operand_is_moved_once():
    a, b = torch.ones(10, 10, device="meta"), torch.ones(10, 10, device="meta")
    assert recorded(lambda: a + b) == [Operation("add", 0, 3 * 400)]
    assert recorded(lambda: a + a) == [Operation("add", 0, 2 * 400)]
    assert recorded(lambda: a.add_(b)) == [Operation("add_", 0, 3 * 400)]
    assert recorded(lambda: a.bfloat16()) == [Operation("_to_copy", 0, 400 + 200)]


def test_views_and_fresh_memory_cost_nothing():
    a = torch.ones(10, 10, device="meta")
    assert recorded(lambda: (a.view(100).t(), a[2:5], a.detach(), torch.empty_like(a))) == []


@pytest.mark.parametrize("layer", [
    nn.Conv2d(8, 12, 3, padding=1),
    nn.Conv2d(8, 12, 3, stride=2, bias=False),
    nn.ConvTranspose2d(8, 12, 2, stride=2),
    nn.Linear(8, 12),
], ids=["3x3", "stride", "transposed", "linear"])  # fmt: skip
@pytest.mark.parametrize("needs_gradient", [True, False])
def test_flops_agree_with_torchs_counter(layer, needs_gradient):
    layer = layer.to("meta")
    shape = (5, 8) if isinstance(layer, nn.Linear) else (5, 8, 6, 6)
    x = torch.ones(shape, device="meta", requires_grad=needs_gradient)

    def both():
        layer.zero_grad()
        layer(x).sum().backward()

    with FlopCounterMode(display=False) as counter:
        both()
    found = recorded(both)
    assert sum(operation.flops for operation in found) == counter.get_total_flops() > 0
    transposed = isinstance(layer, nn.ConvTranspose2d)
    assert any(operation.kind == TRANSPOSED for operation in found) == transposed


def test_groups_divide_the_flops_forward_and_backward():
    """torch's own counter (2.15) forgets them in the backward pass."""
    layer = nn.Conv2d(8, 16, 3, padding=1, groups=4, bias=False, device="meta")
    x = torch.ones(5, 8, 6, 6, device="meta", requires_grad=True)
    found = recorded(lambda: layer(x).sum().backward())
    forward = 2 * (5 * 16 * 6 * 6) * (8 // 4 * 3 * 3)
    assert [one.flops for one in found if one.flops] == [forward, 2 * forward]


@pytest.mark.parametrize("name", sorted(GPUS))
def test_data_sheets_are_in_the_units_they_say(name):
    low, high = (GPUS[name].device(precision) for precision in ("float32", "bfloat16"))
    assert 1e13 < low.throughput < high.throughput < 1e16
    assert 5e11 < low.bandwidth == high.bandwidth < 1e13
    assert high.transposed == high.throughput
