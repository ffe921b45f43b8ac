"""The mathematics of the whole project: the uncertainty-weighted squared error and its family.

For the clean image's feature z (teacher), the degraded image's feature ẑ (student) and the
predicted log-variance σ = log θ², each element of the features costs (Eq. 9, with k = 2)

    exp(−σ)·(z − ẑ)² + k·σ                                                        (element)

times, for β > 0, stop_gradient(exp(β·σ)) (Seitzer et al. 2022). Without σ the element is the
plain squared error, that is σ = 0. Everything here is a pure function over any array namespace
`xp`; the kernels compute the same faster, and the tests tie them to this file.

Source: Yang et al., "Self-Feature Distillation with Uncertainty Modeling for Degraded Image
Recognition", ECCV 2022.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ulfd.checks import dtype_name

Array = Any
VID_EPSILON = 1e-5


def _identity(array: Array) -> Array:
    return array


def compute_dtype(*arrays: Array | None, xp: Any) -> Any:
    """float64 if any array is float64, otherwise float32: half precisions only store."""
    names = [dtype_name(array.dtype) for array in arrays if array is not None]
    return xp.float64 if "float64" in names else xp.float32


def clamped(log_variance: Array, clamp: tuple[float, float] | None, *, xp: Any) -> Array:
    """σ limited to [low, high]; the gradient is zero where the limit acts, and NaN stays NaN."""
    if clamp is None:
        return log_variance
    # Constants replace σ where the limit acts, which is what stops the gradient there. `clip`
    # would do, but frameworks disagree on its gradient at the limits themselves.
    low = xp.full_like(log_variance, clamp[0])
    high = xp.full_like(log_variance, clamp[1])
    raised = xp.where(log_variance < clamp[0], low, log_variance)
    return xp.where(log_variance > clamp[1], high, raised)


def element_loss(
    student: Array,
    teacher: Array,
    log_variance: Array | None = None,
    *,
    xp: Any,
    prior_weight: float = 2.0,
    beta: float = 0.0,
    clamp: tuple[float, float] | None = None,
    stop_gradient: Callable[[Array], Array] = _identity,
) -> Array:
    """exp(−σ)·(z − ẑ)² + k·σ per element (inside the sum of Eq. 9), times sg(exp(β·σ)).

    Args:
        student: ẑ, the degraded image's features, any shape.
        teacher: z, the clean image's features, the same shape.
        log_variance: σ = log θ², any shape that broadcasts to the features'; None for the
            deterministic special case (z − ẑ)².
        xp: the array namespace, as `array_api_compat.numpy`.
        prior_weight: k; 2 with Jeffreys' prior (Eq. 9), 1 for the Gaussian likelihood alone.
        beta: β of the β-weighted likelihood; 0 turns the weighting off.
        clamp: (low, high) limits of σ; where they act, σ has no gradient.
        stop_gradient: the framework's detach.
    Returns:
        the loss of every element, the features' shape, in float32 (float64 for float64 inputs).
    """
    dtype = compute_dtype(student, teacher, log_variance, xp=xp)
    residual = xp.astype(student, dtype) - xp.astype(teacher, dtype)
    squared = residual * residual
    if log_variance is None:
        return squared
    sigma = clamped(xp.astype(log_variance, dtype), clamp, xp=xp)
    loss = xp.exp(-sigma) * squared + prior_weight * sigma
    return loss if beta == 0.0 else stop_gradient(xp.exp(beta * sigma)) * loss


def denominator(shape: tuple[int, ...], reduction: str) -> int:
    """What the sum over all elements is divided by: elements (mean), samples (batchmean) or 1."""
    if reduction == "batchmean":
        return shape[0]
    if reduction != "mean":
        return 1
    elements = 1
    for size in shape:
        elements *= size
    return elements


def ulfd_loss(
    student: Array,
    teacher: Array,
    log_variance: Array | None = None,
    *,
    xp: Any,
    prior_weight: float = 2.0,
    weight: float = 1.0,
    reduction: str = "mean",
    beta: float = 0.0,
    clamp: tuple[float, float] | None = None,
    stop_gradient: Callable[[Array], Array] = _identity,
) -> Array:
    """λ · reduce(exp(−σ)·(z − ẑ)² + k·σ), Eq. 9 under the weight λ of Eq. 10.

    Args:
        student, teacher, log_variance, xp, prior_weight, beta, clamp, stop_gradient:
            see `element_loss`.
        weight: λ.
        reduction: "mean" over all elements after broadcasting; "batchmean", their sum divided by
            the number of samples (Eq. 9 taken literally); "sum"; "none", the elements themselves.
    Returns:
        a scalar, or the features' shape for "none"; float32, or float64 for float64 inputs.
    """
    elements = element_loss(
        student,
        teacher,
        log_variance,
        xp=xp,
        prior_weight=prior_weight,
        beta=beta,
        clamp=clamp,
        stop_gradient=stop_gradient,
    )
    if reduction == "none":
        return weight * elements
    return xp.sum(elements) * (weight / denominator(student.shape, reduction))


def vid_log_variance(raw: Array, *, xp: Any, epsilon: float = VID_EPSILON) -> Array:
    """σ = log(softplus(a) + ε), the learned variance of VID as a log-variance.

    Args:
        raw: a, one learned number per channel, shaped to broadcast, as (1, C, 1, 1).
        epsilon: ε, the smallest variance.
    Returns:
        σ, the shape of `raw`; pass it to `ulfd_loss` with `FAMILY["vid"].options`.

    Source: Ahn et al., "Variational Information Distillation for Knowledge Transfer", CVPR 2019.
    """
    # softplus(a) = log(e^a + e^0), which neither overflows nor has a kink at 0.
    return xp.log(xp.logaddexp(raw, xp.zeros_like(raw)) + epsilon)


@dataclass(frozen=True)
class Member:
    """One loss of the family: the options of `ulfd_loss` that make it, and where it comes from."""

    formula: str
    source: str
    options: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    log_variance: str = "any"  # "any" shape, "channel" (1, C, 1, 1), or "none"


FAMILY: Mapping[str, Member] = MappingProxyType(
    {
        "ulfd": Member("exp(−σ)·(z − ẑ)² + 2σ", "Yang et al. 2022, Eq. 9"),
        "mse": Member("(z − ẑ)²", "Yang et al. 2022, Sec. 4.1, 'w/o UEM'", log_variance="none"),
        "gaussian_nll": Member(
            "½·(exp(−σ)·(z − ẑ)² + σ)",
            "Kendall & Gal 2017, Eq. 5",
            MappingProxyType({"prior_weight": 1.0, "weight": 0.5}),
        ),
        "beta_nll": Member(
            "sg(exp(σ/2))·½·(exp(−σ)·(z − ẑ)² + σ)",
            "Seitzer et al. 2022, Eq. 5 with β = 1/2",
            MappingProxyType({"prior_weight": 1.0, "weight": 0.5, "beta": 0.5}),
        ),
        "vid": Member(
            "½·((z − ẑ)²/s + log s), s = softplus(a) + ε per channel",
            "Ahn et al. 2019",
            MappingProxyType({"prior_weight": 1.0, "weight": 0.5}),
            log_variance="channel",
        ),
    }
)
"""The losses by name. A new one is a new entry; the conformance tests find it by themselves."""
