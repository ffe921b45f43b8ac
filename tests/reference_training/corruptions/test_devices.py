"""Nothing depends on torch's defaults; float64 stays away from devices that have none."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reference_training.corruptions import CORRUPTIONS, batch, blur, corrupt, filters
from reference_training.corruptions.random import Random
from reference_training.corruptions.registry import SEMANTICS
from reference_training.data.sampling import cycle

aten = torch.ops.aten
CPU = torch.device("cpu")

# Severities between which the ways of computing change: the largest kernels, water and mud.
SEVERITIES = [1, 2, 4, 5]


@pytest.fixture(params=SEMANTICS)
def made(request, images):
    """What every type makes of four images, and how to make it again."""
    side = min(each.side for each in SEMANTICS[request.param].parameter_sets.values())
    pixels = torch.nn.functional.interpolate(images[:4].float(), size=side).to(torch.uint8)
    seeds = torch.arange(4)

    def make(name, images=pixels):
        options = {"semantics": request.param, "frost": "procedural"}
        return corrupt(images, name, SEVERITIES, seeds=seeds, **options)

    return {name: make(name) for name in CORRUPTIONS}, make


def forget():
    """Empties the caches, so that kept tensors are made anew."""
    from reference_training.corruptions import blur, digital, frost, noise, random, resampling

    for module in (blur, digital, filters, frost, noise, random, resampling):
        for value in vars(module).values():
            getattr(value, "cache_clear", lambda: None)()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_default_dtype(made, dtype):
    expected, make = made
    before = torch.get_default_dtype()
    forget()
    torch.set_default_dtype(dtype)
    try:
        for name in CORRUPTIONS:
            assert torch.equal(make(name), expected[name]), name
    finally:
        torch.set_default_dtype(before)
        forget()


def test_default_device(made):
    expected, make = made
    forget()
    with torch.device("meta"):
        for name in CORRUPTIONS:
            assert torch.equal(make(name), expected[name]), name


class Meta(TorchDispatchMode):
    """Has the device "meta" act as one whose values are all zero on the CPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        there = args and isinstance(args[0], torch.Tensor) and args[0].device.type == "meta"
        if there and function is aten._to_copy.default and kwargs.get("device") == CPU:
            dtype = kwargs.get("dtype") or args[0].dtype
            return torch.zeros(args[0].shape, dtype=dtype, device=CPU)
        if there and function in (aten.equal.default, aten._local_scalar_dense.default):
            return True
        if there and function is aten.bincount.default:
            return torch.zeros(args[2], dtype=torch.int64, device="meta")
        return function(*args, **kwargs)


class Without(Meta):
    """As on a device without float64."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = super().__torch_dispatch__(function, types, args, kwargs)
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.device.type == "meta":
                assert value.dtype != torch.float64, function
        return result


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_no_float64_on_a_device_without(monkeypatch, name, semantics, dtype):
    assert not filters.supports_float64(torch.device("mps"))
    monkeypatch.setattr(filters, "supports_float64", lambda device: device.type == "cpu")
    images = torch.empty(4, 3, 224, 224, dtype=dtype, device="meta")
    options = {"semantics": semantics, "frost": "procedural"}
    with Without():
        result = corrupt(images, name, SEVERITIES, seeds=[0, 1, 2, 3], **options)
    assert (result.device.type, result.dtype) == ("meta", dtype)


class Launches(Meta):
    """Counts what a device is asked to compute or copy, and how often it is waited for."""

    def __init__(self):
        super().__init__()
        self.launched = self.waits = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = super().__torch_dispatch__(function, types, args, kwargs)
        on = [[one.device.type for one in tree_leaves(group) if isinstance(one, torch.Tensor)]
              for group in (args, result)]  # fmt: skip
        if "meta" in on[0] and "meta" not in on[1]:
            self.waits += 1
        elif "meta" in on[1] and not function.is_view and "empty" not in str(function):
            self.launched += 1
        return result


def of_the_device(names, severities):
    images = torch.empty(len(names), 3, 224, 224, dtype=torch.uint8, device="meta")
    seeds = list(range(len(names)))

    def run():
        corrupt(images, names, severities, seeds=seeds, frost="procedural")

    for found in (Launches(), Launches()):  # in the first what is kept is made
        with found:
            run()
    return found


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_only_jpeg_and_the_water_of_spatter_wait_for_the_device(name):
    waits = {level: of_the_device([name], [level]).waits for level in SEVERITIES}
    waiting = {"jpeg_compression": SEVERITIES, "spatter": [1, 2]}.get(name, [])
    assert [level for level in SEVERITIES if waits[level]] == waiting


def test_all_severities_together_give_the_same_bits(made, monkeypatch):
    """A GPU's way, on the CPU: one call for a type where its arguments are numbers."""
    expected, make = made
    monkeypatch.setattr(batch, "_mixes_severities", lambda device: True)
    monkeypatch.setattr(blur, "_add_one_by_one", blur._add_together)
    for name in CORRUPTIONS:
        assert torch.equal(make(name), expected[name]), name


def test_launches_of_a_batch_of_256():
    names, severities = cycle(Random(torch.zeros(0, dtype=torch.int64)), torch.arange(256), 0)
    assert 500 < of_the_device(names, severities).launched <= 950


def test_wide_gaussians_are_computed_on_the_cpu_for_such_a_device(monkeypatch, unit):
    expected = filters.gaussian_filter(unit.float(), 4)
    moved = []
    monkeypatch.setattr(filters, "supports_float64", lambda device: moved.append(device))
    assert torch.equal(filters.gaussian_filter(unit.float(), 4), expected)
    assert moved
