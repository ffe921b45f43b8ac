"""The loss for NumPy arrays: the same names and arguments as `ulfd_torch` and `ulfd_jax`."""

from typing import Any

import numpy as np
from array_api_compat import numpy as xp

from ulfd import checks, gradients, losses
from ulfd.kernels import registry

Array = np.ndarray[Any, Any]


def _arrays(
    student: Any, teacher: Any, log_variance: Any, implementation: str | None, options: dict
) -> tuple[Array, Array, Array | None]:
    """The inputs as checked NumPy arrays."""
    for array in (student, teacher, log_variance):
        module = type(array).__module__.split(".")[0]
        if module in ("torch", "jax", "jaxlib"):
            framework = "torch" if module == "torch" else "jax"
            raise TypeError(
                f"ulfd.ulfd_loss computes with NumPy but was given a {framework} array; use "
                f"ulfd_{framework}.ulfd_loss, which takes the same arguments."
            )
    student, teacher = np.asarray(student), np.asarray(teacher)
    if log_variance is not None:
        log_variance = np.asarray(
            log_variance, dtype=student.dtype if isinstance(log_variance, int | float) else None
        )
    dtypes = {"student": student.dtype, "teacher": teacher.dtype}
    shape = None
    if log_variance is not None:
        dtypes["log_variance"] = log_variance.dtype
        shape = log_variance.shape
    checks.check_dtypes(**dtypes)
    checks.check_shapes(student.shape, teacher.shape, shape, options["reduction"])
    checks.check_options(beta=options["beta"], clamp=options["clamp"])
    names = tuple(checks.dtype_name(dtype) for dtype in dtypes.values())
    problem = registry.Problem("numpy", "cpu", names, student.shape, shape, options["reduction"])
    registry.select(problem, implementation)
    return student, teacher, log_variance


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
    implementation: str | None = None,
) -> Array:
    """λ · reduce(exp(−σ)·(z − ẑ)² + k·σ) of NumPy arrays (Eq. 9 of Yang et al. 2022).

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
        implementation: a kernel's name, or None for the best one that serves the inputs.
    Returns:
        a 0-d array, or the features' shape for "none": float32, float64 for float64 inputs.
    Raises:
        ValueError, TypeError: as `ulfd.checks` words them.
    """
    options: dict[str, Any] = {
        "prior_weight": prior_weight,
        "weight": weight,
        "reduction": reduction,
        "beta": beta,
        "clamp": clamp,
    }
    arrays = _arrays(student, teacher, log_variance, implementation, options)
    return np.asarray(losses.ulfd_loss(*arrays, xp=xp, **options))


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
    upstream: Any = 1.0,
    implementation: str | None = None,
) -> tuple[Array, gradients.Gradients]:
    """The loss of `ulfd_loss` and its gradients, each in its own input's shape and dtype.

    >>> import numpy as np, ulfd
    >>> loss, gradients = ulfd.value_and_grad(np.zeros(4), np.ones(4), np.zeros(4))
    >>> gradients.student
    array([-0.5, -0.5, -0.5, -0.5])

    Args:
        upstream: the gradient arriving at the loss; a number, or the features' shape for "none".
        others: as in `ulfd_loss`.
    Returns:
        (loss, Gradients(student, teacher, log_variance)).
    Raises:
        ValueError, TypeError: as `ulfd.checks` words them.
    """
    options: dict[str, Any] = {
        "prior_weight": prior_weight,
        "weight": weight,
        "reduction": reduction,
        "beta": beta,
        "clamp": clamp,
    }
    arrays = _arrays(student, teacher, log_variance, implementation, options)
    loss = np.asarray(losses.ulfd_loss(*arrays, xp=xp, **options))
    exact = gradients.closed_form(*arrays, **options, upstream=upstream, dtype=loss.dtype.type)
    student, teacher, log_variance = arrays
    return loss, gradients.Gradients(
        exact.student.astype(student.dtype),
        exact.teacher.astype(teacher.dtype),
        None if exact.log_variance is None else exact.log_variance.astype(log_variance.dtype),
    )
