"""The options of the loss as one object: checked here, and nowhere else.

Every adapter makes it of its keyword arguments, `ulfd.kernels.registry.Problem` carries it to the
kernels, which refuse what they do not implement, and JAX compiles it in.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from ulfd.losses import FAMILY, LIKELIHOODS

Likelihood = str | tuple[str | float, ...]
"""How a likelihood is given: its name, or a tuple of the name and its parameters."""
REDUCTIONS = ("mean", "batchmean", "sum", "none")


class LossOptions(NamedTuple):
    """All of the loss that is no array; frozen and hashable. `loss_options` makes checked ones.

    Args:
        prior_weight: k; 2 with Jeffreys' prior (Eq. 9), 1 for the Gaussian likelihood alone.
        weight: λ of Eq. 10.
        reduction: "mean" over all elements after broadcasting; "batchmean", their sum divided by
            the number of samples (Eq. 9 taken literally); "sum"; "none", the elements themselves.
        beta: β of the β-weighted likelihood (Seitzer et al. 2022); 0 turns the weighting off.
        clamp: (low, high) limits of σ; where they act, σ has no gradient.
        likelihood: a name of `ulfd.losses.LIKELIHOODS`.
        parameters: its fixed parameters, as (ν,) of "student_t".
        gamma: γ of the network's own weights exp(−γσ), of mean 1; None where the likelihood trains
            network and σ alike. See `separated`.
    """

    prior_weight: float = 2.0
    weight: float = 1.0
    reduction: str = "mean"
    beta: float = 0.0
    clamp: tuple[float, float] | None = None
    likelihood: str = "gaussian"
    parameters: tuple[float, ...] = ()
    gamma: float | None = None

    def separated(self) -> tuple["LossOptions", "LossOptions"]:
        """The options of the two losses that a γ stands for: the network's, and σ's.

        The network's is the squared error under weights that `ulfd.losses.fixed_weights` has as a
        log-variance; σ's is the likelihood, under the weight 1.
        """
        network = LossOptions(prior_weight=0.0, weight=self.weight, reduction=self.reduction)
        return network, self._replace(weight=1.0, gamma=None)


DEFAULT = LossOptions()


def check_number(name: str, value: Any) -> None:
    """Raises unless an option is a finite number: TypeError if no number, ValueError otherwise."""
    if isinstance(value, (int, float)):
        if not -inf < value < inf:  # compilers trace no isfinite
            raise ValueError(f"ulfd_loss: {name} is {value}, but must be finite.")
        return
    if getattr(value, "requires_grad", False):
        raise TypeError(
            f"ulfd_loss: {name} is a tensor that requires gradients, but gets none: they go to "
            f"the features and σ. Give {name} as a number; a factor to be learned multiplies the "
            "loss."
        )
    if not hasattr(value, "__float__"):
        raise TypeError(f"ulfd_loss: {name} is {value!r}, but must be a number.")


def _limits(clamp: Any) -> tuple[float, float]:
    pair = isinstance(clamp, (tuple, list)) and len(clamp) == 2
    if not (pair and all(hasattr(v, "__float__") for v in clamp) and clamp[0] < clamp[1]):
        raise ValueError(
            f"ulfd_loss: clamp is {clamp}, but must be (low, high) with low < high, "
            "such as (-10.0, 10.0)."
        )
    return float(clamp[0]), float(clamp[1])


def _likelihood(given: Any) -> tuple[str, tuple[float, ...]]:
    """The name and its parameters, of "laplace" or ("student_t", 4.0)."""
    if given == DEFAULT.likelihood:  # at every step of most trainings
        return DEFAULT.likelihood, DEFAULT.parameters
    name, *parameters = given if isinstance(given, (tuple, list)) and given else (given,)
    if not isinstance(name, str) or name not in LIKELIHOODS:
        raise ValueError(
            f"ulfd_loss: unknown likelihood {given!r}; use one of {sorted(LIKELIHOODS)}, those "
            'with parameters in a tuple, as ("student_t", 4.0).'
        )
    needed = LIKELIHOODS[name].parameters
    for parameter, value in zip(needed, parameters, strict=False):
        check_number(f"{parameter} of {name!r}", value)
    if len(parameters) != len(needed) or not all(value > 0 for value in parameters):
        example = (name, *(4.0 for _ in needed)) if needed else name
        raise ValueError(
            f"ulfd_loss: likelihood is {given!r}, but {name!r} has the parameters "
            f"{list(needed)}, each > 0; give it as {example!r}."
        )
    return name, tuple(float(value) for value in parameters)


def loss_options(
    *,
    prior_weight: float = DEFAULT.prior_weight,
    weight: float = DEFAULT.weight,
    reduction: str = DEFAULT.reduction,
    beta: float = DEFAULT.beta,
    clamp: Sequence[float] | None = DEFAULT.clamp,
    likelihood: Likelihood = DEFAULT.likelihood,
    gamma: float | None = DEFAULT.gamma,
) -> LossOptions:
    """The options, checked, with plain Python numbers.

    >>> loss_options(weight=1, clamp=[-5, 5])[:5]
    (2.0, 1.0, 'mean', 0.0, (-5.0, 5.0))

    Args:
        likelihood: a name, or a tuple of the name and its parameters, as ("student_t", 4.0).
        others: as in `LossOptions`.
    Raises:
        ValueError: an option is unknown or outside its range.
        TypeError: an option is no number.
    """
    check_number("prior_weight", prior_weight)
    check_number("weight", weight)
    check_number("beta", beta)
    if reduction not in REDUCTIONS:
        raise ValueError(f"ulfd_loss: unknown reduction {reduction!r}; use one of {REDUCTIONS}.")
    if not beta >= 0:  # nor NaN
        raise ValueError(f"ulfd_loss: beta is {beta}, but must be >= 0 (0 turns it off).")
    if gamma is not None:
        check_number("gamma", gamma)
        if beta != 0:
            raise ValueError(
                f"ulfd_loss: beta is {beta} and gamma {gamma}, but both weight the elements; take "
                "gamma = 1 - beta for beta's weights, normalised."
            )
    name, parameters = _likelihood(likelihood)
    return LossOptions(
        float(prior_weight),
        float(weight),
        reduction,
        float(beta),
        None if clamp is None else _limits(clamp),
        name,
        parameters,
        None if gamma is None else float(gamma),
    )


_MAKES = {"prior_weight", "beta", "likelihood", "gamma"}
"""What makes a member of the family; the rest is how it is used."""


def member_options(name: str, weight: float = 1.0, **given: Any) -> dict[str, Any]:
    """The arguments of `ulfd_loss` that make a member of the family, under the weight λ.

    >>> member_options("beta_nll", weight=0.1, reduction="sum")
    {'prior_weight': 1.0, 'weight': 0.05, 'beta': 0.5, 'reduction': 'sum'}

    Args:
        name: of `ulfd.FAMILY`.
        weight: λ; it multiplies the member's own factor, as the ½ of a likelihood.
        given: other arguments; the member's likelihood may have other parameters, as
            likelihood=("student_t", 10.0).
    Raises:
        KeyError: there is no such member; the message lists them.
        TypeError: an argument is the member's own.
    """
    own: Mapping[str, Any] = FAMILY[name].options
    for key in _MAKES & given.keys():
        here = own.get(key, getattr(DEFAULT, key))
        if key != "likelihood" or _likelihood(given[key])[0] != _likelihood(here)[0]:
            raise TypeError(
                f"the loss {name!r} has {key} = {here!r} of its own; for another leave the name "
                f"out, and give all that makes it, of this one {dict(own)}."
            )
    return {**own, "weight": weight * own.get("weight", 1.0), **given}


def check_member(name: str | None, log_variance: Any) -> None:
    """Raises ValueError unless σ is given where the member of the family has one, and only there.

    None is a loss without a name, which is the mean squared error where σ is None.
    """
    if name is None or (FAMILY[name].log_variance == "none") == (log_variance is None):
        return
    if log_variance is None:
        raise ValueError(
            f"the loss {name!r} needs log_variance, σ; 0.0 stands for σ = 0, and the mean squared "
            "error is 'mse'."
        )
    raise ValueError(
        f"the loss {name!r} has no σ, but log_variance is given; leave it out, or choose a loss "
        f"with one, as {[other for other in FAMILY if FAMILY[other].log_variance == 'any']}."
    )


def named(
    loss: Callable[..., Any], name: str, weight: float, given: dict[str, Any]
) -> Callable[..., Any]:
    """A framework's `ulfd_loss` as a member of the family; see `member_options`."""
    fixed = member_options(name, weight, **given)

    def member(student: Any, teacher: Any, log_variance: Any = None) -> Any:
        check_member(name, log_variance)
        return loss(student, teacher, log_variance, **fixed)

    return member
