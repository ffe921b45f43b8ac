"""The mathematics against closed forms, published implementations and finite differences."""

import array_api_strict
import numpy as np
import pytest
import torch
from array_api_compat import numpy as xp
from hypothesis import given
from hypothesis import strategies as st

import ulfd
import ulfd_jax
import ulfd_torch
from tests.oracle import FEATURE_SHAPES, log_variance_shapes, make_case
from ulfd import losses
from ulfd.gradients import (
    Gradients,
    closed_form,
    sum_to,
    vid_log_variance_derivative,
)
from ulfd.options import LossOptions, loss_options

finite = st.floats(-20, 20)


@given(z=finite, z_hat=finite, sigma=st.floats(-10, 10), k=st.sampled_from([1.0, 2.0]))
def test_one_element_by_hand(z, z_hat, sigma, k):
    loss = ulfd.ulfd_loss(np.array([z_hat]), np.array([z]), np.array([sigma]), prior_weight=k)
    assert loss == pytest.approx(np.exp(-sigma) * (z - z_hat) ** 2 + k * sigma, rel=1e-12, abs=1e-9)


def test_eq_9_is_twice_eq_8():
    """Eq. 8: (z − ẑ)²/(2θ²) + log θ²."""
    case = make_case((6, 4, 3, 3), (6, 4, 3, 3), lambda array: array)
    variance = np.exp(case.log_variance)
    eq8 = (case.teacher - case.student) ** 2 / (2 * variance) + np.log(variance)
    loss = ulfd.ulfd_loss(case.student, case.teacher, case.log_variance)
    assert loss == pytest.approx(2 * eq8.mean(), rel=1e-12)


def test_gaussian_nll_agrees_with_torch():
    case = make_case((6, 4, 3, 3), (6, 4, 3, 3), lambda array: array)
    student, teacher, sigma = map(torch.tensor, (case.student, case.teacher, case.log_variance))
    peer = torch.nn.functional.gaussian_nll_loss(student, teacher, sigma.exp(), eps=0.0)
    ours = ulfd.ulfd_loss(
        case.student, case.teacher, case.log_variance, **ulfd.FAMILY["gaussian_nll"].options
    )
    assert float(ours) == pytest.approx(peer.item(), rel=1e-12)


def test_vid_agrees_with_its_definition():
    case = make_case((6, 4, 3, 3), None, lambda array: array)
    raw = np.linspace(-30, 30, 4).reshape(1, 4, 1, 1)
    variance = np.log1p(np.exp(raw)) + 1e-5
    peer = 0.5 * ((case.student - case.teacher) ** 2 / variance + np.log(variance))
    sigma = losses.vid_log_variance(raw, xp=xp)
    ours = ulfd.ulfd_loss(case.student, case.teacher, sigma, **ulfd.FAMILY["vid"].options)
    assert float(ours) == pytest.approx(peer.mean(), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("laplace", torch.distributions.Laplace),
        ("student_t", lambda mean, scale: torch.distributions.StudentT(4.0, mean, scale)),
    ],
)
def test_a_likelihood_is_its_distributions(name, distribution):
    """Minus the log-density, up to what depends on nothing."""
    case = make_case((6, 4, 3, 3), (6, 4, 3, 3), lambda array: array)
    student, teacher, sigma = map(torch.tensor, (case.student, case.teacher, case.log_variance))
    peer = -distribution(teacher, (0.5 * sigma).exp()).log_prob(student)
    constant = -distribution(torch.tensor(0.0), torch.tensor(1.0)).log_prob(torch.tensor(0.0))
    options = {**ulfd.FAMILY[name].options, "reduction": "none"}
    ours = ulfd.ulfd_loss(case.student, case.teacher, case.log_variance, **options)
    np.testing.assert_allclose(ours, peer.numpy() - constant.item(), rtol=1e-6, atol=1e-6)


def test_a_name_that_the_family_lacks_brings_the_names():
    for make in (ulfd.named_loss, ulfd_torch.ULFDLoss.named, ulfd_jax.named_loss):
        with pytest.raises(KeyError, match=r"no loss 'huber'.*'beta_nll'.*'student_t'"):
            make("huber")


@pytest.mark.parametrize("name", ulfd.FAMILY)
def test_a_named_loss_is_the_members_options_under_a_weight(name):
    features = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    options = dict(ulfd.FAMILY[name].options)
    own = options.pop("weight", 1.0)
    if ulfd.FAMILY[name].log_variance == "none":
        features = features[:2]
    expected = ulfd.ulfd_loss(*features, **options, weight=0.1 * own)
    tensors = torch.tensor(features)
    assert ulfd.named_loss(name, weight=0.1)(*features) == pytest.approx(expected, rel=1e-5)
    assert ulfd_jax.named_loss(name, weight=0.1)(*features) == pytest.approx(expected, rel=1e-5)
    module = ulfd_torch.ULFDLoss.named(name, weight=0.1, clamp=(-9, 9))
    assert module(*tensors).item() == pytest.approx(expected, rel=1e-5)


def test_a_named_loss_keeps_the_members_own_options():
    for make in (ulfd.named_loss, ulfd_torch.ULFDLoss.named, ulfd_jax.named_loss):
        with pytest.raises(TypeError, match="prior_weight"):
            make("vid", prior_weight=2.0)
        with pytest.raises(TypeError, match=r"has beta = 0.5 of its own.*'prior_weight': 1.0"):
            make("beta_nll", beta=1.0)
        with pytest.raises(TypeError, match="has likelihood"):
            make("student_t", likelihood="laplace")
        with pytest.raises(TypeError, match=r"'gaussian_nll' has beta = 0.0 of its own"):
            make("gaussian_nll", beta=0.5)


def test_a_named_loss_takes_sigma_where_it_has_one():
    """The mean squared error with σ would be Eq. 9, and a likelihood without it the squares."""
    given = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    for make, array in (
        (ulfd.named_loss, np.asarray),
        (ulfd_torch.ULFDLoss.named, torch.tensor),
        (ulfd_jax.named_loss, np.asarray),
    ):
        student, teacher, sigma = map(array, given)
        with pytest.raises(ValueError, match="'mse' has no σ, but log_variance is given"):
            make("mse")(student, teacher, sigma)
        with pytest.raises(ValueError, match=r"'gaussian_nll' needs log_variance, σ; 0\.0 stands"):
            make("gaussian_nll")(student, teacher)
        half = float(np.mean((given[0] - given[1]) ** 2)) / 2
        assert float(make("gaussian_nll")(student, teacher, 0.0)) == pytest.approx(half, rel=1e-5)
        other = make("student_t", likelihood=("student_t", 10.0))(student, teacher, sigma)
        expected = ulfd.ulfd_loss(
            *given, likelihood=("student_t", 10.0), prior_weight=1.0, weight=0.5
        )
        assert float(other) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        ("cauchy", r"unknown likelihood 'cauchy'; use one of \['gaussian'"),
        ("student_t", r"'student_t' has the parameters \['degrees'\], each > 0; give it as \('st"),
        (("student_t", -1.0), "each > 0"),
        (("gaussian", 1.0), r"'gaussian' has the parameters \[\].*give it as 'gaussian'"),
    ],
)
def test_an_unknown_likelihood_is_refused_with_the_remedy(likelihood, message):
    with pytest.raises(ValueError, match=message):
        ulfd.ulfd_loss(np.zeros(3), np.ones(3), 0.0, likelihood=likelihood)


def test_vid_starts_at_variance_five():
    """Its authors initialise the parameter so that the variance is 5."""
    raw = np.log(np.expm1(5.0 - losses.VID_EPSILON))
    assert np.exp(losses.vid_log_variance(np.array(raw), xp=xp)) == pytest.approx(5.0)


def test_vid_derivative_by_differences():
    raw, step = np.linspace(-20, 20, 41), 1e-5
    ahead, behind = (losses.vid_log_variance(raw + s, xp=xp) for s in (step, -step))
    assert np.allclose((ahead - behind) / (2 * step), vid_log_variance_derivative(raw), rtol=1e-5)


def test_without_log_variance_it_is_the_mean_squared_error():
    case = make_case((6, 4), None, lambda array: array)
    mse = np.mean((case.student - case.teacher) ** 2)
    assert ulfd.ulfd_loss(case.student, case.teacher) == pytest.approx(mse, rel=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "batchmean", "sum", "none"])
@pytest.mark.parametrize("beta", [0.0, 0.5])
@pytest.mark.parametrize("clamp", [None, (-1.0, 0.5)])
@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", ("student_t", 4.0)])
def test_closed_form_against_finite_differences(reduction, beta, clamp, likelihood):
    """Central differences in float64; β's factor is held fixed, for no gradient flows through."""
    options = {"reduction": reduction, "weight": 0.7}
    formula = {"prior_weight": 1.5, "clamp": clamp, "likelihood": likelihood}
    generator = np.random.default_rng(2)
    for shape in FEATURE_SHAPES[:3]:
        for sigma_shape in [None, *log_variance_shapes(shape)]:
            case = make_case(shape, sigma_shape, lambda array: array)
            upstream = generator.normal(size=shape if reduction == "none" else ())
            gradients = closed_form(
                case.student,
                case.teacher,
                case.log_variance,
                loss_options(**options, **formula, beta=beta),
                upstream=upstream,
            )
            inputs = [case.student, case.teacher, case.log_variance]
            frozen = 0.0 if sigma_shape is None else losses.clamped(inputs[2], clamp, xp=xp)

            def total(arrays, upstream=upstream, frozen=frozen):
                elements = losses.element_loss(*arrays, loss_options(**formula), xp=xp)
                scale = options["weight"] / losses.denominator(elements.shape, reduction)
                return (scale * upstream * np.exp(beta * frozen) * elements).sum()

            for position, gradient in enumerate(gradients):
                if gradient is None:
                    continue
                direction = generator.normal(size=inputs[position].shape)
                # A step across a limit of the clamp has no derivative to compare with.
                if position == 2 and clamp is not None:
                    near = np.abs(inputs[2][..., None] - np.array(clamp)).min(-1) < 1e-3
                    direction = np.where(near, 0.0, direction)
                step = 1e-6
                ahead, behind = list(inputs), list(inputs)
                ahead[position] = inputs[position] + step * direction
                behind[position] = inputs[position] - step * direction
                difference = (total(ahead) - total(behind)) / (2 * step)
                exact = (gradient * direction).sum()
                # The difference's own error: eps·|total|/step from rounding, step² from curvature.
                scale = np.abs(gradient * direction).sum() + abs(total(inputs))
                assert difference == pytest.approx(exact, abs=1e-7 * scale + 1e-9)


@pytest.mark.parametrize("clamp", [None, (-1.0, 0.5)])
@pytest.mark.parametrize("gamma", [0.0, 0.5, -1.0])
def test_network_and_sigma_trained_apart_by_hand(gamma, clamp):
    """λ·w·d² trains the features, exp(−σ)·d² + k·σ trains σ; w has the mean 1 over the elements."""
    options = {"weight": 0.3, "prior_weight": 1.5, "gamma": gamma, "clamp": clamp}
    for shape in log_variance_shapes((4, 3, 5)):
        case = make_case((4, 3, 5), shape, lambda array: array)
        d, given = case.student - case.teacher, np.broadcast_to(case.log_variance, (4, 3, 5))
        sigma = given if clamp is None else np.clip(given, *clamp)
        w = np.exp(-gamma * sigma)
        w = w / w.mean()
        loss, gradients = ulfd.value_and_grad(
            case.student, case.teacher, case.log_variance, upstream=0.7, **options
        )
        value = (0.3 * w * d**2 + np.exp(-sigma) * d**2 + 1.5 * sigma).mean()
        assert loss == pytest.approx(value, rel=1e-12)
        by_student = 0.7 * 0.3 * 2 * w * d / d.size
        np.testing.assert_allclose(gradients.student, by_student, rtol=1e-12, atol=1e-16)
        np.testing.assert_allclose(gradients.teacher, -by_student, rtol=1e-12, atol=1e-16)
        each = np.where(sigma == given, 0.7 * (1.5 - np.exp(-sigma) * d**2) / d.size, 0.0)
        expected = sum_to(each, np.shape(case.log_variance))
        np.testing.assert_allclose(gradients.log_variance, expected, rtol=1e-11, atol=1e-15)


def test_without_sigma_a_gamma_changes_nothing():
    case = make_case((6, 4), None, lambda array: array)
    given = {"weight": 0.3, "gamma": 0.5, "likelihood": "laplace", "clamp": (1.0, 2.0)}
    mse = 0.3 * np.mean((case.student - case.teacher) ** 2)
    assert ulfd.ulfd_loss(case.student, case.teacher, **given) == pytest.approx(mse, rel=1e-12)


def test_weights_of_mean_one_neither_overflow_nor_vanish():
    """exp(−γσ) of σ = ±400 is no float32, but its share of the mean is."""
    sigma = np.array([-400.0, -399.0, 400.0], np.float32)
    student, teacher = np.ones(3, np.float32), np.zeros(3, np.float32)
    gradient = ulfd.value_and_grad(student, teacher, sigma, gamma=1.0)[1].student
    share = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(gradient, 2 * np.array([share, 1 - share, 0.0]), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"gamma": 0.5, "beta": 0.5},
            ValueError,
            "both weight the elements; take gamma = 1",
        ),
        ({"gamma": float("nan")}, ValueError, "gamma is nan, but must be finite"),
        ({"gamma": "0"}, TypeError, "gamma is '0', but must be a number"),
    ],
)
def test_a_gamma_that_does_not_fit(options, error, message):
    for module in (ulfd, ulfd_jax):
        with pytest.raises(error, match=message):
            module.ulfd_loss(np.zeros(3), np.ones(3), 0.0, **options)
    with pytest.raises(error, match=message):
        ulfd_torch.ULFDLoss(**options)


def test_any_array_namespace():
    """array-api-strict has nothing but the standard, so nothing else is used."""
    arrays = [array_api_strict.asarray(np.ones((2, 3)) * value) for value in (1.0, 3.0, 0.5)]
    loss = losses.ulfd_loss(*arrays, LossOptions(beta=0.5, clamp=(-1.0, 1.0)), xp=array_api_strict)
    expected = np.exp(0.25) * (np.exp(-0.5) * 4 + 1.0)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_special_values_follow_ieee():
    inf, nan = np.inf, np.nan
    student = np.array([0.0, inf, nan, 0.0, 0.0, 1.0])
    sigma = np.array([inf, 0.0, 0.0, nan, -inf, -inf])
    with np.errstate(over="ignore", invalid="ignore"):
        loss = ulfd.ulfd_loss(student, np.zeros(6), sigma, reduction="none")
        clamped = ulfd.ulfd_loss(student, np.zeros(6), sigma, reduction="none", clamp=(-5, 5))
    # 0·∞ is NaN at the fifth; at the last exp(−σ)·d² = ∞ meets k·σ = −∞.
    assert np.array_equal(np.isnan(loss), [False, False, True, True, True, True])
    assert loss[0] == inf
    assert loss[1] == inf
    assert np.array_equal(np.isnan(clamped), [False, False, True, True, False, False])
    assert clamped[4] == -10
    assert clamped[5] == pytest.approx(np.exp(5) - 10)


def test_the_clamp_has_a_gradient_at_its_limits_but_not_beyond():
    sigma = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    gradient = closed_form(
        np.zeros(5), np.zeros(5), sigma, LossOptions(clamp=(-1, 1), reduction="sum")
    )
    assert gradient.log_variance.tolist() == [0.0, 2.0, 2.0, 2.0, 0.0]
    tensor = torch.tensor(sigma, requires_grad=True)
    from ulfd_torch import ulfd_loss

    zeros = torch.zeros(5, dtype=torch.float64)
    ulfd_loss(zeros, zeros, tensor, clamp=(-1, 1), reduction="sum").backward()
    assert tensor.grad.tolist() == [0.0, 2.0, 2.0, 2.0, 0.0]


def test_a_python_number_is_a_log_variance():
    ones, zeros = np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)
    loss, gradients = ulfd.value_and_grad(ones, zeros, 0.0)
    assert loss.dtype == np.float32
    assert gradients.log_variance.shape == ()
    assert float(gradients.log_variance) == pytest.approx(1.0)


@pytest.mark.parametrize("sigma", [-60.0, -90.0, -170.0])
def test_student_t_has_no_residual_that_is_too_large(sigma):
    """The residual's square is no float32: 2·log|r| and (ν + 1)/r take its place."""
    arrays = [np.array([value], np.float32) for value in (3.0, -3.0, sigma)]
    options = {"likelihood": ("student_t", 4.0)}
    exact = closed_form(*arrays, loss_options(**options))
    d, e = 6.0, np.exp(sigma / 2)
    loss = 5 * np.log1p((d / e) ** 2 / 4) + 2 * sigma
    assert exact.student == pytest.approx(2 * 5 * d / (4 * e**2 + d**2))
    assert exact.log_variance == pytest.approx(2 - 5 * d**2 / (4 * e**2 + d**2))
    found = [ulfd.value_and_grad(*arrays, **options)]
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    value = ulfd_torch.ulfd_loss(*tensors, **options)
    value.backward()
    found.append((value.item(), Gradients(*(tensor.grad.numpy() for tensor in tensors))))
    found.append(ulfd_jax.value_and_grad(*arrays, **options))
    for value, gradients in found:
        assert float(value) == pytest.approx(loss, rel=1e-6)
        for name in Gradients._fields:
            expected = getattr(exact, name)
            assert np.asarray(getattr(gradients, name)) == pytest.approx(expected, rel=1e-5)
