"""The mathematics of the whole project: the uncertainty-weighted squared error and its family.

For the clean image's feature z (teacher), the degraded image's feature ẑ (student) and the
predicted log-variance σ = log θ², each element of the features costs (Eq. 9, with k = 2)

    r² + k·σ    with the standardised residual    r = (ẑ − z)·exp(−σ/2)            (element)

times, for β > 0, stop_gradient(exp(β·σ)) (Seitzer et al. 2022). This is exp(−σ)·(z − ẑ)² + k·σ,
but 0·∞ does not occur in it for any σ > −176 in float32. Without σ the element is the plain squared
error, that is σ = 0. Other likelihoods put another penalty ρ(r) in the place of r². Everything here
is a pure function over any array namespace `xp`; the kernels compute the same faster, and the tests
tie them to this file.

Source: Yang et al., "Self-Feature Distillation with Uncertainty Modeling for Degraded Image
Recognition", ECCV 2022.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ulfd.checks import dtype_name

if TYPE_CHECKING:
    from ulfd.options import LossOptions

Array = Any
VID_EPSILON = 1e-5


def identity(array: Array) -> Array:
    """The array: what stops the gradient where there is none."""
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


class Likelihood(NamedTuple):
    """What an element costs beside k·σ; its derivative is in `ulfd.gradients.HALF_SLOPES`.

    Args:
        penalty: ρ, called as `penalty(r, *parameters, xp=xp)`; even, and growing with the size of
            r.
        parameters: the names of its fixed parameters, each > 0.
    """

    penalty: Callable[..., Array]
    parameters: tuple[str, ...] = ()


def _student_t(r: Array, degrees: float, *, xp: Any) -> Array:
    scaled = r / degrees**0.5
    # Beyond 10⁹ log(1 + x²) is 2·log|x| to every digit, and x² would overflow.
    beyond = xp.clip(xp.abs(scaled), 1e9, None) / 1e9
    return (degrees + 1) * (xp.log1p(xp.clip(scaled, -1e9, 1e9) ** 2) + 2 * xp.log(beyond))


LIKELIHOODS: dict[str, Likelihood] = {
    "gaussian": Likelihood(lambda r, xp: r * r),
    "laplace": Likelihood(lambda r, xp: r * xp.sign(r)),  # abs has slope 1 at 0 in JAX
    "student_t": Likelihood(_student_t, ("degrees",)),
}
"""The likelihoods by name; `FAMILY` says which k and λ make the log-likelihood of each."""


def element_loss(
    student: Array,
    teacher: Array,
    log_variance: Array | None,
    options: "LossOptions",
    *,
    xp: Any,
    stop_gradient: Callable[[Array], Array] = identity,
) -> Array:
    """ρ((ẑ − z)·exp(−σ/2)) + k·σ per element (inside the sum of Eq. 9), times sg(exp(β·σ)).

    Args:
        student: ẑ, the degraded image's features, any shape.
        teacher: z, the clean image's features, the same shape.
        log_variance: σ = log θ², any shape that broadcasts to the features'; None for the
            deterministic special case (z − ẑ)², in which k, β and the clamp have no part.
        options: k, β, the clamp and the likelihood; λ and the reduction are `ulfd_loss`'s.
        xp: the array namespace, as `array_api_compat.numpy`.
        stop_gradient: the framework's detach.
    Returns:
        the loss of every element, the features' shape, in float32 (float64 for float64 inputs).
    """
    dtype = compute_dtype(student, teacher, log_variance, xp=xp)
    penalty = LIKELIHOODS[options.likelihood].penalty
    difference = xp.astype(student, dtype) - xp.astype(teacher, dtype)
    if log_variance is None:
        return penalty(difference, *options.parameters, xp=xp)
    sigma = clamped(xp.astype(log_variance, dtype), options.clamp, xp=xp)
    residual = difference * xp.exp(-0.5 * sigma)
    loss = penalty(residual, *options.parameters, xp=xp) + options.prior_weight * sigma
    return loss if options.beta == 0.0 else stop_gradient(xp.exp(options.beta * sigma)) * loss


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
    log_variance: Array | None,
    options: "LossOptions",
    *,
    xp: Any,
    stop_gradient: Callable[[Array], Array] = identity,
) -> Array:
    """λ · reduce(exp(−σ)·(z − ẑ)² + k·σ), Eq. 9 under the weight λ of Eq. 10; see `separated`
    for options with a γ.

    Args:
        student, teacher, log_variance, options, xp, stop_gradient: see `element_loss`.
    Returns:
        a scalar, or the features' shape for reduction "none"; float32, or float64 for float64
        inputs.
    """
    names = {"xp": xp, "stop_gradient": stop_gradient}
    if options.gamma is not None:
        parts = separated(student, teacher, log_variance, options, **names)
        return sum(ulfd_loss(*part, **names) for part in parts)
    elements = element_loss(student, teacher, log_variance, options, **names)
    if options.reduction == "none":
        return options.weight * elements
    return xp.sum(elements) * (options.weight / denominator(student.shape, options.reduction))


def fixed_weights(
    student: Array,
    teacher: Array,
    log_variance: Array | None,
    options: "LossOptions",
    *,
    xp: Any,
    stop_gradient: Callable[[Array], Array] = identity,
) -> Array | None:
    """s = sg(γσ + log mean exp(−γσ)): exp(−s) are the network's weights, of mean 1.

    Returns:
        s, σ's shape in the dtype of the arithmetic; None for weights that are 1.
    """
    if log_variance is None:
        return None
    dtype = compute_dtype(student, teacher, log_variance, xp=xp)
    sigma = clamped(xp.astype(stop_gradient(log_variance), dtype), options.clamp, xp=xp)
    if options.gamma == 0.0 or 0 in sigma.shape:
        # A wider σ decides the arithmetic of all.
        return None if compute_dtype(student, teacher, xp=xp) == dtype else xp.zeros_like(sigma)
    scaled = options.gamma * sigma
    least = xp.min(scaled)
    return scaled - least + xp.log(xp.mean(xp.exp(least - scaled)))


class Part(NamedTuple):
    """What a loss that is the sum of two calls `ulfd_loss` with."""

    student: Array
    teacher: Array
    log_variance: Array | None
    options: "LossOptions"


def separated(
    student: Array,
    teacher: Array,
    log_variance: Array | None,
    options: "LossOptions",
    *,
    xp: Any,
    stop_gradient: Callable[[Array], Array] = identity,
) -> list[Part]:
    """The losses whose sum one with a γ is, the network's and σ's:

    λ·reduce(w·(z − ẑ)²) + reduce(exp(−σ)·sg((z − ẑ)²) + k·σ), w = sg(exp(−γσ)/mean(exp(−γσ))).

    The network is trained by the first term alone, σ by the second. γ = 0 is faithful: the plain
    MSE, with an honest σ beside it (Stirn et al., "Faithful Heteroscedastic Regression with Neural
    Networks", AISTATS 2023). γ = 1 − β has the relative weights of the β-weighted likelihood;
    γ < 0 raises what is hard. σ is to be predicted from a detached feature, or its term trains the
    network by way of it. Without σ the first term is all.

    Args: as in `ulfd_loss`.
    """
    of_network, of_sigma = options.separated()
    weights = fixed_weights(
        student, teacher, log_variance, options, xp=xp, stop_gradient=stop_gradient
    )
    network = Part(student, teacher, weights, of_network)
    if log_variance is None:
        return [network]
    held = stop_gradient(student), stop_gradient(teacher)
    return [network, Part(*held, log_variance, of_sigma)]


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
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    log_variance: str = "any"  # "any" shape, "channel" (1, C, 1, 1), or "none"


class _Family(dict[str, Member]):
    def __missing__(self, name: str) -> Member:
        raise KeyError(f"there is no loss {name!r}; the family has {sorted(self)}")


FAMILY: Mapping[str, Member] = MappingProxyType(
    _Family(
        ulfd=Member("exp(−σ)·(z − ẑ)² + 2σ", "Yang et al. 2022, Eq. 9"),
        mse=Member("(z − ẑ)²", "Yang et al. 2022, Sec. 4.1, 'w/o UEM'", log_variance="none"),
        gaussian_nll=Member(
            "½·(exp(−σ)·(z − ẑ)² + σ)",
            "Kendall & Gal 2017, Eq. 5",
            MappingProxyType({"prior_weight": 1.0, "weight": 0.5}),
        ),
        beta_nll=Member(
            "sg(exp(σ/2))·½·(exp(−σ)·(z − ẑ)² + σ)",
            "Seitzer et al. 2022, Eq. 5 with β = 1/2",
            MappingProxyType({"prior_weight": 1.0, "weight": 0.5, "beta": 0.5}),
        ),
        faithful=Member(
            "λ·(z − ẑ)² + exp(−σ)·sg((z − ẑ)²) + 2σ",
            "Stirn et al. 2023",
            MappingProxyType({"gamma": 0.0}),
        ),
        vid=Member(
            "½·((z − ẑ)²/s + log s), s = softplus(a) + ε per channel",
            "Ahn et al. 2019",
            MappingProxyType({"prior_weight": 1.0, "weight": 0.5}),
            log_variance="channel",
        ),
        # −log of exp(−|d|/s)/(2s) with the scale s = exp(σ/2), whose variance is 2·exp(σ); log 2,
        # which nothing depends on, is left out.
        laplace=Member(
            "|z − ẑ|·exp(−σ/2) + σ/2",
            "Ilg et al. 2018",
            MappingProxyType({"likelihood": "laplace", "prior_weight": 0.5}),
        ),
        # −log of Student's t with ν degrees of freedom and the scale exp(σ/2), whose variance is
        # exp(σ)·ν/(ν − 2); log(Γ(ν/2)·√(νπ)/Γ((ν + 1)/2)), a constant, is left out.
        student_t=Member(
            "½·((ν + 1)·log(1 + exp(−σ)·(z − ẑ)²/ν) + σ) with ν = 4",
            "Lange, Little & Taylor 1989",
            MappingProxyType(
                {"likelihood": ("student_t", 4.0), "prior_weight": 1.0, "weight": 0.5}
            ),
        ),
    )
)
"""The losses by name. A new one is a new entry; the conformance tests find it by themselves."""
