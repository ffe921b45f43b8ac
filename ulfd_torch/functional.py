"""The loss for PyTorch tensors: checks, the choice of a kernel, and the call."""

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any

import torch
from array_api_compat import torch as xp
from torch import Tensor
from torch.autograd import forward_ad

from ulfd import checks, losses
from ulfd.gradients import Gradients, joined
from ulfd.kernels import registry
from ulfd.options import Likelihood, LossOptions, loss_options
from ulfd_torch import composite, derivatives
from ulfd_torch.operators import KERNELS

IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "composite": composite.loss,
    **{kernel: partial(derivatives.loss, kernel) for kernel in KERNELS},
}
"""What computes the loss, by the kernel's name in `ulfd.kernels.registry`."""

VALUE_AND_GRADIENTS: dict[str, Callable[..., tuple[Tensor | None, ...]]] = {
    "composite": composite.value_and_gradients,
    **{kernel: partial(derivatives.value_and_gradients, kernel) for kernel in KERNELS},
}
"""What computes the loss and its gradients together, by the same names."""


_ADAPTERS = {"numpy": "ulfd", "jax": "ulfd_jax", "jaxlib": "ulfd_jax"}
"""Whose loss takes what is no tensor, by the module of its type."""


def _no_tensor(name: str, value: Any) -> TypeError:
    kind = type(value).__module__.split(".")[0]
    remedy = "convert it with torch.as_tensor"
    if kind in _ADAPTERS:
        remedy += f", or use {_ADAPTERS[kind]}.ulfd_loss, which takes the same arguments"
    kind = "" if kind == "builtins" else f"{kind} "
    return TypeError(
        f"ulfd_torch.ulfd_loss computes with torch.Tensor but {name} is a {kind}"
        f"{type(value).__name__}; {remedy}."
    )


def check_dense(where: str, name: str, tensor: Tensor) -> None:
    """Raises TypeError for sparse, nested and oneDNN tensors, whose elements no kernel reads."""
    if tensor.is_nested or tensor.layout != torch.strided:
        kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        raise TypeError(
            f"{where}: {name} is a tensor of the layout {kind}, but a dense one is needed; "
            "convert it with .to_dense(), a nested one with .to_padded_tensor(0.0)."
        )


def _double(*given: Any) -> bool:
    return any(getattr(tensor, "dtype", None) == torch.float64 for tensor in given)


def _is_distributed(tensor: Tensor) -> bool:
    """Whether it is a DTensor, without importing what may not be there."""
    return type(tensor).__module__.startswith("torch.distributed.")


def _check_primal(name: str, *tensors: Tensor | None) -> None:
    """Raises ValueError for tensors with tangents, of forward mode, which a kernel would drop."""
    if name != "composite" and any(
        one is not None and forward_ad.unpack_dual(one).tangent is not None for one in tensors
    ):
        raise ValueError(
            f"ulfd_loss: implementation {name!r} has no forward-mode derivative; pass "
            "implementation=None."
        )


def _checked(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | float | None,
    options: LossOptions,
    implementation: str | None,
) -> tuple[Tensor | None, str]:
    """σ as a tensor, and the name of the kernel that serves the inputs."""
    # A union of types is more than torch.compile of torch 2.7 can trace.
    if isinstance(log_variance, (int, float)) and isinstance(student, Tensor):
        # In the arithmetic's dtype, which has the number as exactly as the loss can use it.
        dtype = torch.float64 if _double(student, teacher) else torch.float32
        log_variance = student.new_full((), log_variance, dtype=dtype)
    inputs = (student, teacher) if log_variance is None else (student, teacher, log_variance)
    for name, value in zip(checks.INPUTS, inputs, strict=False):
        if not isinstance(value, Tensor):
            raise _no_tensor(name, value)
        check_dense("ulfd_loss", name, value)
    observed = derivatives.observed(*inputs)
    distributed = [type(t) for t in inputs if _is_distributed(t)] if observed else []
    forward = forward_ad._current_level >= 0
    if implementation is None and (distributed or forward):
        implementation = "composite"  # no kernel has a forward-mode derivative, nor shards
    if distributed and implementation != "composite":
        raise ValueError(
            f"ulfd_loss: implementation {implementation!r} cannot serve these inputs: one is a "
            f"{distributed[0].__name__}, which only 'composite' partitions; pass "
            "implementation=None."
        )
    shapes = tuple([tensor.shape for tensor in inputs])
    dtypes = tuple([tensor.dtype for tensor in inputs])
    devices = tuple([tensor.device for tensor in inputs])
    # Sizes that are not known yet cannot be looked up.
    choose = registry.chosen.__wrapped__ if observed else registry.chosen
    name = choose("torch", shapes, dtypes, devices, options, implementation)
    if forward:
        _check_primal(name, *inputs)
    return log_variance, name


def _parts(
    student: Tensor, teacher: Tensor, log_variance: Tensor | None, options: LossOptions
) -> list[losses.Part]:
    """The losses that one with a γ is the sum of."""
    inputs = (student, teacher, log_variance)
    return losses.separated(*inputs, options, xp=xp, stop_gradient=Tensor.detach)


def _loss(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | float | None,
    options: LossOptions,
    implementation: str | None,
) -> Tensor:
    """The loss by the kernel that serves it; one of two parts is that of each."""
    sigma, name = _checked(student, teacher, log_variance, options, implementation)
    if options.gamma is None:
        return IMPLEMENTATIONS[name](student, teacher, sigma, options)
    parts = _parts(student, teacher, sigma, options)
    total: Any = sum(_loss(*part, implementation) for part in parts)
    return total


def ulfd_loss(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | float | None = None,
    *,
    prior_weight: float = 2.0,
    weight: float = 1.0,
    reduction: str = "mean",
    beta: float = 0.0,
    clamp: tuple[float, float] | None = None,
    likelihood: Likelihood = "gaussian",
    gamma: float | None = None,
    implementation: str | None = None,
) -> Tensor:
    """λ · reduce(exp(−σ)·(z − ẑ)² + k·σ) (Eq. 9 of Yang et al. 2022).

    Gradients flow to every input that requires them; to keep the teacher from training, pass
    `teacher.detach()`.

    >>> import torch
    >>> student = torch.zeros(2, 3, requires_grad=True)
    >>> loss = ulfd_loss(student, torch.ones(2, 3), torch.zeros(2, 1))
    >>> loss.backward()
    >>> loss.item(), student.grad[0, 0].item()
    (1.0, -0.3333333432674408)

    Args:
        student: ẑ, the degraded image's features, any shape, any floating dtype.
        teacher: z, the clean image's features, the same shape.
        log_variance: σ = log θ²; any shape that broadcasts to the features', one number, or None
            for σ = 0: by default the mean squared error ("Ours w/o UEM").
        prior_weight: k, 2 with Jeffreys' prior (Eq. 9), 1 for the Gaussian likelihood.
        weight: λ of Eq. 10.
        reduction: "mean" over all elements after broadcasting, "batchmean" (their sum divided by
            the number of samples), "sum" or "none".
        beta: β of the β-weighted likelihood (Seitzer et al. 2022); 0 is off.
        clamp: (low, high) limits of σ; no gradient where they act.
        likelihood: a name of `ulfd.losses.LIKELIHOODS` ("gaussian", ...), or a tuple of it and its
            parameters; `ulfd.FAMILY` has the k and λ that belong to each.
        gamma: γ of `ulfd.losses.separated`: the network gets the squared error under fixed weights
            exp(−γσ) of mean 1 (0: the MSE), and σ its likelihood; None is Eq. 9.
        implementation: a kernel's name ("composite", ...), or None for the best one that serves
            the inputs.
    Returns:
        a scalar, or the features' shape for "none"; float32, or float64 for float64 inputs.
    Raises:
        ValueError: shapes, devices, reduction, options or implementation do not fit.
        TypeError: an input is no floating-point tensor, or an option no number.
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
    return _loss(student, teacher, log_variance, options, implementation)


def _loss_and_gradients(
    name: str, part: losses.Part, upstream: Tensor | None, teacher_gradient: bool
) -> tuple[Tensor, Gradients]:
    """Both by the kernel of this name, of a loss of one part."""
    *inputs, options = part
    results: Any = VALUE_AND_GRADIENTS[name](
        *inputs, upstream, options, teacher_gradient=teacher_gradient
    )
    return results[0], Gradients(*results[1:])


def value_and_grad(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | float | None = None,
    *,
    prior_weight: float = 2.0,
    weight: float = 1.0,
    reduction: str = "mean",
    beta: float = 0.0,
    clamp: tuple[float, float] | None = None,
    likelihood: Likelihood = "gaussian",
    gamma: float | None = None,
    upstream: Tensor | float = 1.0,
    teacher_gradient: bool = True,
    implementation: str | None = None,
) -> tuple[Tensor, Gradients]:
    """The loss of `ulfd_loss` and its gradients together; one pass over memory where fused.

    On a GPU `ulfd_loss` followed by `backward` reads the inputs twice, because autograd learns the
    upstream gradient only afterwards. If you know it before (λ belongs in `weight`, a loss scale
    in `upstream`), this saves the second pass; `Tensor.backward` takes the gradients:

    >>> import torch
    >>> student = torch.zeros(4, requires_grad=True)
    >>> loss, gradients = value_and_grad(student, torch.ones(4), torch.zeros(4))
    >>> student.backward(gradients.student)
    >>> student.grad
    tensor([-0.5000, -0.5000, -0.5000, -0.5000])

    Args:
        upstream: the gradient arriving at the loss: a number, or a tensor in the loss's shape.
        teacher_gradient: False spares the teacher's gradient, which is then None.
        others: as in `ulfd_loss`.
    Returns:
        (loss, Gradients(student, teacher, log_variance)), each gradient in its input's shape and
        dtype; log_variance's is None where σ was. Differentiable like any other function.
    Raises:
        ValueError, TypeError: as `ulfd_loss`; or upstream has another shape or device.
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
    sigma, name = _checked(student, teacher, log_variance, options, implementation)
    if not isinstance(upstream, Tensor):
        checks.check_upstream(upstream, (), ())
        if not isinstance(upstream, (int, float)):
            if not isinstance(upstream, Real):  # as NumPy's scalars are
                raise _no_tensor("upstream", upstream)
            upstream = float(upstream)
        arriving = None
        if upstream != 1.0:
            dtype = losses.compute_dtype(student, teacher, sigma, xp=xp)
            arriving = torch.full((), upstream, dtype=dtype, device=student.device)
    else:
        arriving = upstream
        checks.check_devices(student=student.device, upstream=arriving.device)
        loss = student.shape if reduction == "none" else ()
        checks.check_upstream(arriving, arriving.shape, loss)
        if forward_ad._current_level >= 0:
            _check_primal(name, arriving)
    given = (arriving, teacher_gradient)
    if options.gamma is None:
        whole = losses.Part(student, teacher, sigma, options)
        return _loss_and_gradients(name, whole, *given)
    found = [
        _loss_and_gradients(_checked(*part, implementation)[1], part, *given)
        for part in _parts(student, teacher, sigma, options)
    ]
    total: Any = sum(loss for loss, _ in found)
    return total, joined([each for _, each in found])


def vid_log_variance(raw: Tensor, *, epsilon: float = losses.VID_EPSILON) -> Tensor:
    """σ = log(softplus(a) + ε) of VID's learned per-channel variance (Ahn et al. 2019).

    Args:
        raw: a, shaped to broadcast to the features, as (1, C, 1, 1).
        epsilon: ε, the smallest variance.
    Returns:
        σ in the shape of `raw`, for `ulfd_loss(..., **ulfd.FAMILY["vid"].options)`.
    """
    return losses.vid_log_variance(raw, xp=xp, epsilon=epsilon)
