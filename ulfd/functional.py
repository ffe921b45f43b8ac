"""The loss for NumPy arrays, and for those of any library that follows the array API standard.

NumPy's have a native kernel. Those of CuPy, MLX, Dask, ... are computed by the core's own functions
in their library and on their device; PyTorch's and JAX's have adapters of their own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat
import numpy as np

from ulfd import checks, losses
from ulfd.gradients import Gradients, closed_form, joined
from ulfd.kernels import registry
from ulfd.kernels.cpu import arrays as native
from ulfd.options import Likelihood, LossOptions, loss_options, named

Array = Any
NUMPY = array_api_compat.array_namespace(np.empty(0))
Results = tuple[Array, Gradients]


def _composite(
    student: Array,
    teacher: Array,
    log_variance: Array | None,
    options: LossOptions,
    *,
    needs: Sequence[bool] = (False, False, False),
    upstream: Any = 1.0,
) -> Results:
    """The core's own functions over the arrays' namespace."""
    inputs = (student, teacher, log_variance)
    xp = array_api_compat.array_namespace(student)
    loss = xp.asarray(losses.ulfd_loss(*inputs, options, xp=xp))
    if not any(needs):
        return loss, Gradients(None, None, None)
    arriving = xp.asarray(upstream, dtype=loss.dtype)
    exact = closed_form(*inputs, options, upstream=arriving, dtype=loss.dtype, xp=xp)
    return loss, Gradients(
        *(
            xp.asarray(xp.astype(gradient, array.dtype)) if need and array is not None else None
            for gradient, array, need in zip(exact, inputs, needs, strict=True)
        )
    )


IMPLEMENTATIONS: dict[str, Callable[..., Results]] = {
    "composite": _composite,
    "native": native.compute,
}
"""What computes the loss, and its gradients, by the kernel's name in `ulfd.kernels.registry`."""


def _compute(
    student: Any,
    teacher: Any,
    log_variance: Any,
    options: LossOptions,
    implementation: str | None,
    **wanted: Any,
) -> Results:
    """Checks the inputs, chooses the kernel and calls it; of a loss of two parts, for each."""
    inputs, name = _checked(student, teacher, log_variance, implementation, options)
    if options.gamma is None:
        return IMPLEMENTATIONS[name](*inputs, options, **wanted)
    xp = array_api_compat.array_namespace(inputs[0])
    network, *others = losses.separated(*inputs, options, xp=xp)
    if network.log_variance is not None:  # of which NumPy makes a number where it has no axes
        network = network._replace(log_variance=xp.asarray(network.log_variance))
    found = [_compute(*part, implementation, **wanted) for part in (network, *others)]
    return xp.asarray(sum(loss for loss, _ in found)), joined([each for _, each in found])


def _is_plain(array: Any) -> bool:
    """Whether it is NumPy's own array: none of a subclass, no list, no other library's."""
    return type(array) is np.ndarray


def _namespace(arrays: dict[str, Any]) -> Any:
    """The library of the arrays: NumPy's for lists and numbers too."""
    if all(map(_is_plain, arrays.values())):
        return NUMPY
    checks.check_unmasked(**arrays)
    found = {}
    for name, array in arrays.items():
        module = type(array).__module__.split(".")[0]
        if module in ("torch", "jax", "jaxlib"):
            framework = "torch" if module == "torch" else "jax"
            raise TypeError(
                f"ulfd.ulfd_loss was given a {framework} array; use ulfd_{framework}.ulfd_loss, "
                "which takes the same arguments and has gradients by itself."
            )
        if array_api_compat.is_array_api_obj(array):
            found[name] = array_api_compat.array_namespace(array)
        elif not isinstance(array, int | float):
            found[name] = NUMPY  # a list, say
    libraries = {namespace.__name__: namespace for namespace in found.values()}
    if len(libraries) > 1:
        given = ", ".join(f"{name} is of {xp.__name__}" for name, xp in found.items())
        raise TypeError(f"ulfd.ulfd_loss: {given}; convert them to one library first.")
    return next(iter(libraries.values()), NUMPY)


def _checked(
    student: Any, teacher: Any, log_variance: Any, implementation: str | None, options: LossOptions
) -> tuple[tuple[Array, Array, Array | None], str]:
    """The inputs as checked arrays of one library, and the name of the kernel that serves them."""
    arrays = {"student": student, "teacher": teacher, "log_variance": log_variance}
    xp = _namespace({name: array for name, array in arrays.items() if array is not None})

    def converted(array: Any) -> Array:
        return array if _is_plain(array) else xp.asarray(array)

    student, teacher = converted(student), converted(teacher)
    if isinstance(log_variance, int | float):  # exact in the arithmetic's dtype
        dtype = losses.compute_dtype(student, teacher, xp=xp)
        where = {"device": student.device} if hasattr(student, "device") else {}
        log_variance = xp.asarray(log_variance, dtype=dtype, **where)
    elif log_variance is not None:
        log_variance = converted(log_variance)
    given = [array for array in (student, teacher, log_variance) if array is not None]
    shapes = tuple(tuple(array.shape) for array in given)
    dtypes = tuple(array.dtype for array in given)
    # MLX's arrays are on no device, for its CPU and GPU share their memory.
    devices = tuple(str(getattr(array, "device", "cpu")) for array in given)
    framework = xp.__name__.removeprefix("array_api_compat.")
    name = registry.chosen(framework, shapes, dtypes, devices, options, implementation)
    return (student, teacher, log_variance), name


def ulfd_loss(
    student: Any,
    teacher: Any,
    log_variance: Any = None,
    *,
    prior_weight: float = 2.0,
    weight: float = 1.0,
    reduction: str = "mean",
    beta: float = 0.0,
    clamp: tuple[float, float] | None = None,
    likelihood: Likelihood = "gaussian",
    gamma: float | None = None,
    implementation: str | None = None,
) -> Array:
    """λ · reduce(exp(−σ)·(z − ẑ)² + k·σ) of arrays (Eq. 9 of Yang et al. 2022).

    >>> import numpy as np, ulfd
    >>> student, teacher = np.zeros((2, 3)), np.ones((2, 3))
    >>> float(ulfd.ulfd_loss(student, teacher, np.zeros((2, 1))))
    1.0

    Args:
        student: ẑ, the degraded image's features, any shape.
        teacher: z, the clean image's features, the same shape.
        log_variance: σ, an array that broadcasts to the features, a number, or None (MSE).
        prior_weight: k, 2 with Jeffreys' prior (Eq. 9), 1 for the Gaussian likelihood.
        weight: λ of Eq. 10.
        reduction: "mean" (over all elements), "batchmean", "sum" or "none".
        beta: β of the β-weighted likelihood (Seitzer et al. 2022); 0 is off.
        clamp: (low, high) limits of σ; no gradient where they act.
        likelihood: a name of `ulfd.losses.LIKELIHOODS` ("gaussian", ...), or a tuple of it and its
            parameters; `ulfd.FAMILY` has the k and λ that belong to each.
        gamma: γ of `ulfd.losses.separated`: the network gets the squared error under fixed weights
            exp(−γσ) of mean 1 (0: the MSE), and σ its likelihood; None is Eq. 9.
        implementation: a kernel's name, or None for the best one that serves the inputs.
    Returns:
        a 0-d array, or the features' shape for "none": float32, float64 for float64 inputs.
    Raises:
        ValueError, TypeError: as `ulfd.checks` words them.
    """
    options = loss_options(
        prior_weight=prior_weight,
        weight=weight,
        reduction=reduction,
        beta=beta,
        clamp=clamp,
        likelihood=likelihood,
        gamma=gamma,
    )
    return _compute(student, teacher, log_variance, options, implementation)[0]


def value_and_grad(
    student: Any,
    teacher: Any,
    log_variance: Any = None,
    *,
    prior_weight: float = 2.0,
    weight: float = 1.0,
    reduction: str = "mean",
    beta: float = 0.0,
    clamp: tuple[float, float] | None = None,
    likelihood: Likelihood = "gaussian",
    gamma: float | None = None,
    upstream: Any = 1.0,
    teacher_gradient: bool = True,
    implementation: str | None = None,
) -> tuple[Array, Gradients]:
    """The loss of `ulfd_loss` and its gradients, each in its own input's shape and dtype.

    >>> import numpy as np, ulfd
    >>> loss, gradients = ulfd.value_and_grad(np.zeros(4), np.ones(4), np.zeros(4))
    >>> gradients.student
    array([-0.5, -0.5, -0.5, -0.5])

    Args:
        upstream: the gradient arriving at the loss; a number, or the features' shape for "none".
        teacher_gradient: False spares the teacher's gradient, which is then None.
        others: as in `ulfd_loss`.
    Returns:
        (loss, Gradients(student, teacher, log_variance)).
    Raises:
        ValueError, TypeError: as `ulfd.checks` words them.
    """
    options = loss_options(
        prior_weight=prior_weight,
        weight=weight,
        reduction=reduction,
        beta=beta,
        clamp=clamp,
        likelihood=likelihood,
        gamma=gamma,
    )
    checks.check_unmasked(upstream=upstream)
    loss = np.shape(student) if reduction == "none" else ()
    checks.check_upstream(upstream, np.shape(upstream) or loss, loss)  # NumPy's scalars are numbers
    wanted = {"needs": (True, teacher_gradient, True), "upstream": upstream}
    return _compute(student, teacher, log_variance, options, implementation, **wanted)


def named_loss(name: str, *, weight: float = 1.0, **options: Any) -> Callable[..., Array]:
    """`ulfd_loss` with a member of `ulfd.FAMILY` filled in, under the weight λ.

    >>> import numpy as np
    >>> loss = named_loss("gaussian_nll", weight=0.1)  # λ·½·(…)
    >>> float(loss(np.zeros(4), np.ones(4), np.zeros(4)))
    0.05

    Args:
        name: of `ulfd.FAMILY`.
        weight: λ; it multiplies the member's own factor.
        options: the other arguments of `ulfd_loss`, as reduction="sum"; the member's likelihood
            may have other parameters, as ("student_t", 10.0).
    Returns:
        a function of student, teacher and log_variance, as `ulfd_loss`; raises ValueError where σ
        is given and the member has none, or the other way round.
    Raises:
        KeyError: there is no such member; the message lists them.
        TypeError: an option is the member's own.
    """
    return named(ulfd_loss, name, weight, options)
