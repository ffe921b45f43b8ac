"""What is logged of the loss: closed forms, no graph, no wait for the device."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from ulfd.statistics import SAMPLE, concern, places
from ulfd_torch import UEM, SelfDistillation, ULFDLoss, loss_statistics, ulfd_loss

SIGMAS = [(3, 4, 5, 5), (3, 1, 5, 5), (3, 1, 1, 1), (1, 4, 1, 1), (5,), ()]


def inputs(dtype=torch.float64, sigma=(3, 1, 5, 5)):
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4, 5, 5), (3, 4, 5, 5), sigma)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes
    ]


@pytest.mark.parametrize("clamp", [None, (-0.5, 0.8)])
@pytest.mark.parametrize("shape", SIGMAS)
def test_every_number_is_its_definition(shape, clamp):
    student, teacher, sigma = inputs(sigma=shape)
    found = loss_statistics(student, teacher, sigma, clamp=clamp)
    z_hat, z, s = student.numpy(), teacher.numpy(), sigma.numpy()
    low, high = clamp or (-np.inf, np.inf)
    squares = (z - z_hat) ** 2
    weighted = np.exp(-np.clip(s, low, high)) * squares
    # 300 elements: the sample is all of them, its largest 1 % are three.
    top = np.sort(weighted, axis=None)[-3:].sum() / weighted.sum()
    padded = s.reshape((1,) * (4 - s.ndim) + s.shape)
    axes = tuple(axis for axis, size in enumerate(padded.shape) if size == 1)
    shared = squares.mean(axes, keepdims=True)
    many = s.size >= 32
    expected = {
        "weighted_residual": (np.exp(-np.clip(s, low, high)) * (z - z_hat) ** 2).mean(),
        "squared_difference": ((z - z_hat) ** 2).mean(),
        "log_variance_mean": s.mean(),
        "log_variance_min": s.min(),
        "log_variance_max": s.max(),
        "log_variance_clamped": np.mean((s < low) | (s > high)),
        "rank_correlation": spearmanr(padded, shared, axis=None).statistic if many else 0.0,
        "effective_weight": weighted.mean() / squares.mean(),
        "top_share": top,
    }
    assert found.as_dict() == pytest.approx(expected, rel=1e-12)
    for value in found:
        assert (value.shape, value.dtype) == ((), torch.float64)


def test_the_two_parts_are_the_loss():
    given = inputs()
    found = loss_statistics(*given)
    total = found.weighted_residual + 2 * found.log_variance_mean
    torch.testing.assert_close(total, ulfd_loss(*given), rtol=1e-12, atol=0)


def test_an_honest_sigma_leaves_a_weighted_residual_of_k():
    """d(exp(−σ)·m + 2σ)/dσ = 0 at σ = log(m/2)."""
    student, teacher = torch.zeros(8).double(), torch.full((8,), 3.0).double()
    found = loss_statistics(student, teacher, math.log(9 / 2))
    assert found.weighted_residual.item() == pytest.approx(2, rel=1e-14)
    assert found.log_variance_max.item() == found.log_variance_min.item() == math.log(9 / 2)


def test_without_sigma_it_is_zero():
    student, teacher, _ = inputs()
    found = loss_statistics(student, teacher, clamp=(-1, 1)).as_dict()
    assert found["weighted_residual"] == found["squared_difference"]
    assert {value for name, value in found.items() if "log" in name} == {0.0}
    assert (found["effective_weight"], found["rank_correlation"]) == (1.0, 0.0)


def test_equal_features_have_no_shares_and_no_ratio():
    same = torch.rand(4, 8, 4, 4)
    found = loss_statistics(same, same, torch.rand(4, 8, 4, 4)).as_dict()
    assert (found["effective_weight"], found["top_share"], found["rank_correlation"]) == (0, 0, 0)


def test_what_is_equal_shares_its_ranks():
    """Most elements behind a ReLU are 0 in both features."""
    torch.manual_seed(0)
    student, teacher = (torch.randn(2, 8, 16, 16, 4) - 1).relu()
    sigma = torch.randint(-2, 3, student.shape).float()
    found = loss_statistics(student, teacher, sigma).rank_correlation.item()
    squares = (student - teacher).square().numpy()
    assert student.numel() == SAMPLE * 2
    # The sample is half of the elements: 4 standard errors of a correlation of 4096 pairs.
    expected = spearmanr(sigma.numpy(), squares, axis=None).statistic
    assert found == pytest.approx(expected, abs=4 / 64)
    small = (sigma[:4, :8].numpy(), squares[:4, :8])
    found = loss_statistics(student[:4, :8], teacher[:4, :8], sigma[:4, :8])
    assert found.rank_correlation.item() == pytest.approx(spearmanr(*small, axis=None).statistic)


def test_the_sample_is_fixed_and_of_different_elements():
    found = torch.stack(places((128, 64, 4, 4), torch.arange))
    assert len(found.unique(dim=1).T) == SAMPLE
    for axis, size in enumerate((128, 64, 4, 4)):  # every index is seen, about equally often
        counts = found[axis].bincount(minlength=size)
        assert counts.min() >= SAMPLE / size / 2


def test_a_weight_that_grows_with_the_error_is_said_once_read():
    """The official UEM: σ ≤ −ẑ, and ẑ and the error grow together."""
    torch.manual_seed(0)
    student = 4 * torch.randn(16, 8, 6, 6).relu()
    teacher = student * (1 + torch.randn_like(student))
    official = loss_statistics(student, teacher, UEM.official(8)(student))
    with pytest.warns(UserWarning, match=r"rank correlation is -0.*UEM\.official\(C, global_skip"):
        official.as_dict()
    even = loss_statistics(student, teacher, torch.zeros(16, 1, 1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        even.as_dict()
        repr(official)
    few = {"rank_correlation": 0.5, "top_share": 0.61}
    assert "1 % of the elements carry 61%" in concern(few)
    assert "60% of σ lie beyond the clamp" in concern({"log_variance_clamped": 0.6})
    numbers = {"rank_correlation": -0.05, "top_share": 0.59, "log_variance_clamped": 0.5}
    assert concern(numbers) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_clamp_is_counted_where_the_loss_applies_it(dtype):
    """σ is compared in float32: −0.3 rounded to bfloat16 lies below −0.3."""
    student, teacher = torch.zeros(2, 4, dtype=dtype), torch.ones(2, 4, dtype=dtype)
    sigma = torch.tensor([[-0.3], [0.5]]).to(dtype)
    found = loss_statistics(student, teacher, sigma, clamp=(-0.3, 9.0))
    below = sigma[0].float().numpy() < np.float32(-0.3)
    assert found.log_variance_clamped.item() == below / 2
    assert found.log_variance_min.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        cast = loss_statistics(student, teacher, sigma, clamp=(-0.3, 9.0))
    assert cast == found
    assert {value.dtype for value in cast} == {torch.float32}


def test_mixed_dtypes_are_read_at_once():
    student, teacher, sigma = inputs()
    found = loss_statistics(student.float(), teacher.float(), sigma)
    assert {value.dtype for value in found} == {torch.float64}
    assert found.as_dict()["log_variance_mean"] == pytest.approx(sigma.mean().item(), rel=1e-12)


def test_a_nan_is_seen():
    student, teacher, sigma = inputs()
    sigma[0, 0, 0, 0] = math.nan
    found = loss_statistics(student, teacher, sigma, clamp=(-1, 1)).as_dict()
    names = "weighted_residual log_variance_mean log_variance_min log_variance_max top_share"
    for name in names.split():
        assert math.isnan(found[name])


def test_features_without_axes_have_statistics_too():
    found = loss_statistics(torch.tensor(1.0), torch.tensor(3.0), 0.0).as_dict()
    assert (found["weighted_residual"], found["top_share"]) == (4, 1)


def test_mistakes_are_those_of_the_loss():
    student, teacher, sigma = inputs()
    with pytest.raises(ValueError, match="shape"):
        loss_statistics(student, teacher[:1], sigma)
    with pytest.raises(ValueError, match="clamp"):
        loss_statistics(student, teacher, sigma, clamp=(1, -1))
    with pytest.raises(TypeError, match="student is a numpy ndarray; convert it with"):
        loss_statistics(student.numpy(), teacher, sigma)


def test_no_graph_is_kept():
    given = [tensor.requires_grad_() for tensor in inputs()]
    for value in loss_statistics(*given, clamp=(-1, 1)):
        assert not value.requires_grad


@pytest.mark.parametrize("sigma", [(2, 1, 8, 8), None])
def test_nothing_waits_for_the_device_until_it_is_read(sigma):
    """A fake tensor has no data, so that who asks for a number fails."""
    with FakeTensorMode():
        features = torch.empty(2, 4, 8, 8)
        log_variance = None if sigma is None else torch.empty(sigma)
        found = loss_statistics(features, features, log_variance, clamp=(-1, 1))
        with pytest.raises(DataDependentOutputException):
            found.as_dict()


def test_it_compiles_in_one_graph():
    def both(student, teacher, sigma):
        return ulfd_loss(student, teacher, sigma), loss_statistics(student, teacher, sigma)

    given = inputs(torch.float32)
    loss, found = torch.compile(both, fullgraph=True, backend="aot_eager")(*given)
    expected = both(*given)
    torch.testing.assert_close((loss, *found), (expected[0], *expected[1]))


def step(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    loss = ULFDLoss(weight=0.3, clamp=(-0.1, 0.3))
    head = nn.Conv2d(4, 1, 1)
    return SelfDistillation(model, layer="1", uem=head, loss=loss, **options)


def test_a_step_has_them_where_it_is_asked():
    clean, degraded, labels = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), torch.tensor([0, 4])
    silent, telling = step(), step(statistics=True)
    nothing, result = silent(clean, degraded, labels), telling(clean, degraded, labels)
    assert nothing.statistics is None
    z_hat, z = (telling.model[:2](images).detach() for images in (degraded, clean))
    expected = loss_statistics(z_hat, z, result.log_variance, clamp=(-0.1, 0.3))
    torch.testing.assert_close(tuple(result.statistics), tuple(expected))
    assert 0 < expected.log_variance_clamped < 1
    assert tuple(telling.loss.statistics(z_hat, z, result.log_variance)) == tuple(expected)
    for one in (nothing, result):
        one.total.backward()
    for plain, told in zip(silent.parameters(), telling.parameters(), strict=True):
        assert torch.equal(plain.grad, told.grad)


def test_a_step_may_be_asked_now_and_then():
    pair = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), torch.tensor([0, 4])
    one = step(teacher="frozen")
    one.statistics = True
    assert one(*pair).statistics is not None
    one.statistics = False
    assert one(*pair).statistics is None
