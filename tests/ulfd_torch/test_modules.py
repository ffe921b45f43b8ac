"""The UEM that torch builds is the one that the specification describes."""

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ulfd import UEMSpec
from ulfd_torch import UEM, ULFDLoss, ulfd_loss

SPECS = [
    UEMSpec(8),
    UEMSpec(8, log_variance="spatial", output="neg_relu", variant="reconstruct"),
    UEMSpec(8, log_variance="element", global_skip=True),
    UEMSpec.official(8),
    UEMSpec.official(8, width=3, blocks=2),
    UEMSpec.official(8, log_variance="spatial"),
    UEMSpec.official(8, log_variance="sample", output="linear"),
    UEMSpec.official(8, normalization="batch", global_skip=False),
    UEMSpec.official(8, variant="reconstruct"),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_weights_match_the_specification(spec):
    uem = UEM(spec)
    assert {name: tuple(p.shape) for name, p in uem.named_parameters()} == spec.weight_shapes()
    assert sum(p.numel() for p in uem.parameters()) == spec.parameters()
    outputs = uem(torch.rand(2, 8, 5, 3))
    sigma = outputs if spec.variant == "side_branch" else outputs.log_variance
    assert tuple(sigma.shape) == spec.output_shape((2, 8, 5, 3))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_multiply_accumulates_are_torchs_count(spec):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        UEM(spec)(torch.empty(3, 8, 4, 6))
    assert counter.get_total_flops() == 2 * 3 * spec.multiply_accumulates(4, 6)


def moved(x, layout):
    """(B, C, H, W) as (B, H, W, C), or as tokens (B, T, C) where W is 1."""
    last = x.permute(0, 2, 3, 1)
    return last.squeeze(2) if layout == "NTC" else last


@pytest.mark.parametrize(("layout", "columns"), [("NHWC", 3), ("NTC", 1)])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_channels_may_stand_last(spec, layout, columns):
    """Values and gradients are those of permuted features; float64 sums of < 100 terms."""
    # Batch normalisation divides by standard deviations of 0.1 and less, one after another.
    tolerance = 1e-12 if spec.normalization == "none" else 1e-9
    close = {"rtol": tolerance, "atol": tolerance}
    torch.manual_seed(0)
    first = UEM(spec).double()
    last = UEM(spec, layout=layout).double()
    last.load_state_dict(first.state_dict())
    x = torch.rand(2, 8, 5, columns, dtype=torch.float64, requires_grad=True)
    y = moved(x.detach(), layout).contiguous().requires_grad_()
    expected, outputs = first(x), last(y)
    if spec.variant == "side_branch":
        expected, outputs = (expected,), (outputs,)
    assert tuple(outputs[0].shape) == spec.output_shape(tuple(y.shape), layout)
    for theirs, ours in zip(expected, outputs, strict=True):
        torch.testing.assert_close(ours, moved(theirs, layout), **close)
    sum(theirs.square().sum() for theirs in expected).backward()
    sum(ours.square().sum() for ours in outputs).backward()
    assert x.grad.abs().sum() > 0
    torch.testing.assert_close(y.grad, moved(x.grad, layout), **close)
    for name, weight in first.named_parameters():
        torch.testing.assert_close(last.get_parameter(name).grad, weight.grad, **close)


@pytest.mark.parametrize("layout", ["NHWC", "NTC"])
def test_the_start_value_with_the_channels_last(layout):
    uem, x = UEM(4, layout=layout), torch.zeros(2, 7, 1, 4)
    x = x.squeeze(2) if layout == "NTC" else x
    uem.start_from(x, x + 2)
    torch.testing.assert_close(uem(x), torch.full_like(uem(x), 2.0).log())  # log(2²/2)


def by_hand(weights, x, blocks):
    """Variant A from its description, with nothing but functional calls."""

    def branch(prefix, y):
        for index, padding in ((1, 0), (2, 1), (3, 0)):
            weight, bias = (
                weights[f"{prefix}.conv{index}.weight"],
                weights[f"{prefix}.conv{index}.bias"],
            )
            y = functional.conv2d(y, weight, bias, padding=padding).clamp(min=0)
        return y

    y = functional.conv_transpose2d(x, weights["deconv.weight"], weights["deconv.bias"], stride=2)
    y = y.clamp(min=0)
    for block in range(blocks):
        y = y + branch(f"blocks.{block}", y)
    y = x + functional.avg_pool2d(y, 2)
    return -(y + branch("head", y))


def test_forward_by_hand():
    torch.manual_seed(0)
    uem = UEM.official(16).double()
    x = torch.rand(2, 16, 7, 5, dtype=torch.float64)
    expected = by_hand(dict(uem.named_parameters()), x, 6)
    torch.testing.assert_close(uem(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("global_skip", [True, False])
@pytest.mark.parametrize("output", ["neg_relu", "linear"])
def test_pointwise_by_hand(output, global_skip):
    """A 1×1 convolution is a matrix product over the channels."""
    torch.manual_seed(0)
    options = {"output": output, "global_skip": global_skip, "variant": "reconstruct"}
    uem = UEM(8, log_variance="element", **options).double()
    x = torch.rand(2, 8, 5, 3, dtype=torch.float64)

    def product(layer):
        rows = torch.einsum("oi,bihw->bohw", layer.weight[:, :, 0, 0], x)
        return rows + layer.bias[:, None, None]

    skip = x if global_skip else 0 * x
    branch = product(uem.head)
    assert (branch < 0).any()
    precision = skip + (branch.clamp(min=0) if output == "neg_relu" else branch)
    outputs = uem(x)
    torch.testing.assert_close(outputs.log_variance, -precision, rtol=1e-12, atol=1e-12)
    feature = skip + product(uem.reconstruction).clamp(min=0)
    torch.testing.assert_close(outputs.feature, feature, rtol=1e-12, atol=1e-12)


def test_official_output_is_never_positive_and_linear_can_be():
    x = torch.rand(4, 8, 5, 5)
    assert UEM.official(8)(x).max() <= 0
    linear = UEM.official(8, output="linear")
    with torch.no_grad():
        linear.head.conv3.bias.fill_(-100.0)
    assert linear(x).max() > 0


def test_sample_is_the_mean_of_the_map():
    torch.manual_seed(0)
    spatial = UEM(8, log_variance="spatial")
    sample = UEM(8, log_variance="sample")
    sample.load_state_dict(spatial.state_dict())
    x = torch.rand(3, 8, 4, 4)
    torch.testing.assert_close(sample(x), spatial(x).mean((2, 3), keepdim=True))


def test_reconstruction_adds_to_the_feature():
    x = torch.rand(2, 8, 4, 4)
    outputs = UEM.official(8, variant="reconstruct")(x)
    assert (outputs.feature >= x).all()


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.start_layer], ids=str)
@pytest.mark.parametrize("k", [2.0, 1.0])
def test_the_start_value_is_the_best_number_for_a_batch(spec, k):
    torch.manual_seed(0)
    uem, x = UEM(spec), torch.rand(3, 8, 4, 6)
    others = {n: p.clone() for n, p in uem.named_parameters() if not n.startswith(spec.start_layer)}
    difference = torch.randn_like(x)
    uem.start_from(x, x + difference, prior_weight=k)
    sigma = uem(x)
    best = (difference.square().mean() / k).log()
    torch.testing.assert_close(sigma, best.expand_as(sigma), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(uem.get_parameter(name), p) for name, p in others.items())
    loss = ulfd_loss(x, x + difference, sigma, prior_weight=k)
    for shift in (0.1, -0.1):
        assert loss < ulfd_loss(x, x + difference, sigma + shift, prior_weight=k)


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_features_that_say_nothing_start_at_one(value):
    uem, x = UEM(8), torch.rand(2, 8, 3, 3)
    uem.start_from(x, x + value)
    assert (uem(x) == 0).all()


def test_the_official_uem_has_no_start_value():
    uem = UEM.official(8, blocks=1)
    assert uem.started
    with pytest.raises(ValueError, match="a skip or a ReLU is behind its last layer"):
        uem.start_from(torch.zeros(1, 8, 2, 2), torch.ones(1, 8, 2, 2))


def test_weights_of_the_default_before_load_by_name():
    """Today's official UEM has the names, shapes and numbers that the default had."""
    old = UEM(
        8, structure="official", output="neg_relu", log_variance="element", global_skip=True
    ).state_dict()
    uem, x = UEM.official(8), torch.rand(2, 8, 4, 4)
    uem.load_state_dict(old)
    torch.testing.assert_close(uem(x), by_hand(old, x, 6))
    for target in (UEM(8), torch.nn.ModuleDict({"uem": UEM(8)})):
        given = old if isinstance(target, UEM) else {f"uem.{k}": v for k, v in old.items()}
        with pytest.raises(RuntimeError, match=r"default once; build it with .*UEM\.official\(8\)"):
            target.load_state_dict(given)
    with pytest.raises(RuntimeError, match="build the UEM with the options of the one that was"):
        uem.load_state_dict(UEM(8).state_dict())


def test_wrong_use():
    with pytest.raises(ValueError, match=r"expected features \(B, 8, H, W\)"):
        UEM(8)(torch.rand(2, 4, 5, 5))
    with pytest.raises(ValueError, match="pass layout='NHWC'"):
        UEM(8)(torch.rand(2, 5, 5, 8))
    with pytest.raises(ValueError, match="layout is 'HWC', but must be one of"):
        UEM(8, layout="HWC")
    with pytest.raises(TypeError, match="not both"):
        UEM(UEMSpec(8), variant="reconstruct")
    with pytest.raises(ValueError, match=r"'pointwise' has no width.*UEM\.official"):
        UEM(8, blocks=2)
    for channels in ("8", 8.0):
        with pytest.raises(TypeError, match=f"channels is {channels!r}"):
            UEM(channels)


LEARNED = torch.tensor(0.1, requires_grad=True)
BAD_OPTIONS = {
    "clamp": ({"clamp": 5}, ValueError, r"clamp is 5.*\(low, high\)"),
    "implementation": ({"implementation": "fused"}, ValueError, "'fused'.*'composite'"),
    "text": ({"weight": "0.1"}, TypeError, r"weight is '0\.1', but must be a number"),
    "beta": ({"beta": [1]}, TypeError, r"beta is \[1\], but must be a number"),
    "learned": ({"weight": LEARNED}, TypeError, "weight is a tensor that requires gradients"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_wrong_options_show_when_the_loss_is_made_and_when_it_is_called(name):
    options, error, message = BAD_OPTIONS[name]
    with pytest.raises(error, match=message):
        ULFDLoss(**options)
    with pytest.raises(error, match=message):
        ulfd_loss(torch.zeros(3), torch.ones(3), 0.0, **options)


@pytest.mark.parametrize(
    ("weight", "due"), [(-0.1, ">= 0"), (float("nan"), "finite"), (float("inf"), "finite")]
)
@pytest.mark.parametrize("name", ["weight", "prior_weight"])
def test_a_module_has_no_weight_that_is_negative_or_infinite(name, weight, due):
    with pytest.raises(ValueError, match=f"{name} is {weight}, but must be {due}"):
        ULFDLoss(**{name: weight})


def test_a_constant_tensor_is_a_number():
    loss = ULFDLoss(weight=torch.tensor(0.5))
    assert loss(torch.zeros(3), torch.ones(3), torch.zeros(3)) == 0.5


def test_the_loss_shows_all_its_options():
    options = {"prior_weight": 1.0, "weight": 0.1, "reduction": "sum", "beta": 0.5}
    options |= {"clamp": (-1, 1), "likelihood": "gaussian", "gamma": None}
    options |= {"implementation": "composite"}
    shown = repr(ULFDLoss(**options))
    assert shown == f"ULFDLoss({', '.join(f'{name}={value!r}' for name, value in options.items())})"
