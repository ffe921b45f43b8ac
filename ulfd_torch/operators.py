"""The fused kernels as torch operators: `torch.ops.ulfd.fused_*`, on GPUs and on CPUs.

Three operators, of which each is one pass over memory: `fused_loss` (read 3), `fused_gradients`
(read 3, write 2 or 3) and `fused_value_and_gradients` (the same, with the loss). The kernel, an
argument of each, is one of `KERNELS`; its module says what is copied and how memory is walked.
`derivatives` makes them differentiable.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from array_api_compat import torch as xp
from torch import Tensor
from torch.library import custom_op

from ulfd.losses import compute_dtype
from ulfd.options import LossOptions
from ulfd_torch import native, triton
from ulfd_torch.memory import outputs

KERNELS = MappingProxyType({"triton": triton.compute, "native": native.compute})
"""What runs a kernel on tensors, by the kernel's name in `ulfd.kernels.registry`."""

_INPUTS = "Tensor student, Tensor teacher, Tensor? log_variance"
_OPTIONS = (
    "str kernel, float prior_weight, float weight, str reduction, float beta, float[]? clamp, "
    "str likelihood, float[] parameters"
)


def flat(kernel: str, options: LossOptions) -> tuple[Any, ...]:
    """The kernel and the options, which have no γ, in the operators' order and types."""
    return kernel, *options[:-1]


def named(kernel: str, *fields: Any) -> LossOptions:
    """The options that `flat` laid out; `kernel`, which comes first, is none of them."""
    prior_weight, weight, reduction, beta, clamp, likelihood, parameters = fields
    # Of tuples torch makes lists.
    bounds = None if clamp is None else (clamp[0], clamp[1])
    return LossOptions(prior_weight, weight, reduction, beta, bounds, likelihood, tuple(parameters))


def loss(student: Tensor, teacher: Tensor, log_variance: Tensor | None, *options: Any) -> Tensor:
    """The scalar loss. Arguments in the schema's order."""
    inputs = (student, teacher, log_variance)
    needs = (False, False, False)
    return KERNELS[options[0]](*inputs, None, named(*options), value=True, needs=needs)[0]


def gradients(
    student: Tensor, teacher: Tensor, log_variance: Tensor | None, upstream: Tensor, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by student, teacher and σ under an upstream gradient on the device.

    `needs` says which are computed; the others come back empty.
    """
    *most, needs = options
    inputs = (student, teacher, log_variance, upstream)
    _, *found = KERNELS[options[0]](*inputs, named(*most), value=False, needs=needs)
    return found[0], found[1], found[2]


def value_and_gradients(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | None,
    upstream: Tensor | None,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`loss` and `gradients` in one pass; upstream None is 1."""
    *most, needs = options
    inputs = (student, teacher, log_variance, upstream)
    return KERNELS[options[0]](*inputs, named(*most), value=True, needs=needs)


def _operator(name: str, function: Callable[..., Any], schema: str) -> Any:
    return custom_op(f"ulfd::{name}", function, mutates_args=(), schema=schema)


_GIVEN = f"{_OPTIONS}, bool[] needs) -> (Tensor, Tensor, Tensor"
fused_loss = _operator("fused_loss", loss, f"({_INPUTS}, {_OPTIONS}) -> Tensor")
fused_gradients = _operator("fused_gradients", gradients, f"({_INPUTS}, Tensor upstream, {_GIVEN})")
fused_value_and_gradients = _operator(
    "fused_value_and_gradients",
    value_and_gradients,
    f"({_INPUTS}, Tensor? upstream, {_GIVEN}, Tensor)",
)


@fused_loss.register_fake
def _fake_loss(
    student: Tensor, teacher: Tensor, log_variance: Tensor | None, *options: Any
) -> Tensor:
    return student.new_empty((), dtype=compute_dtype(student, teacher, log_variance, xp=xp))


@fused_gradients.register_fake
def _fake_gradients(
    student: Tensor, teacher: Tensor, log_variance: Tensor | None, upstream: Tensor, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return outputs(student, teacher, log_variance, options[-1])


@fused_value_and_gradients.register_fake
def _fake_value_and_gradients(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | None,
    upstream: Tensor | None,
    *options: Any,
) -> tuple[Tensor, ...]:
    value = _fake_loss(student, teacher, log_variance)
    return value, *outputs(student, teacher, log_variance, options[-1])
