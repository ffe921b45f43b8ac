"""What makes the kernels' operators citizens of torch: their derivatives, vmap, torch.func.

Which operator runs. Autograd does not know the upstream gradient while it computes the loss; a loss
that is weighted or scaled afterwards has not 1. Saved gradients would have to be scaled later: 4
more words per element, out of reach of float16's range if stored unscaled. So `loss` runs
`fused_loss` forward and `fused_gradients` backward, with the upstream gradient read on the device:
3 + 5 words, right for any upstream and any number of backward passes. `ulfd_torch.value_and_grad`
takes the upstream gradient as an argument: `fused_value_and_gradients`, 5 words.

On CPUs the backward pass can look at the upstream gradient, which is 1 where λ is in `weight`
and the loss is added to others. So there `_KeptLoss` computes the gradients with the loss and keeps
them for the first backward pass: 5 words, or 9 under another upstream gradient.

The second derivative goes through `composite`, and so does vmap.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ulfd.options import LossOptions
from ulfd_torch import composite, operators
from ulfd_torch.operators import (
    flat,
    fused_gradients,
    fused_loss,
    fused_value_and_gradients,
    named,
)

# ------------------------------------------------------- the same in plain torch, for derivatives


def _plain_loss(
    student: Tensor, teacher: Tensor, log_variance: Tensor | None, *options: Any
) -> Tensor:
    return composite.loss(student, teacher, log_variance, named(*options))


def _plain_gradients(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | None,
    upstream: Tensor | None,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    *most, needs = options
    given = composite.gradients(upstream, student, teacher, log_variance, named(*most))
    first, second, third = (
        gradient if need and gradient is not None else student.new_empty(0)
        for gradient, need in zip(given, needs, strict=True)
    )
    return first, second, third


def _plain_value_and_gradients(*arguments: Any) -> tuple[Tensor, ...]:
    student, teacher, log_variance, _, *options = arguments
    loss = _plain_loss(student, teacher, log_variance, *options[:-1])
    return loss, *_plain_gradients(*arguments)


def _savable(tensor: Tensor | None) -> Tensor | None:
    """The tensor; of one of inference mode, which autograd cannot save, a copy."""
    return tensor if tensor is None or not tensor.is_inference() else tensor.clone()


def _keep(tensors: int) -> Callable[..., None]:
    """A `setup_context` that saves the first `tensors` arguments and remembers the others."""

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*map(_savable, inputs[:tensors]))
        ctx.others = inputs[tensors:]

    return setup


# `is_grads_batched` still uses the vmap before torch.func's, which knows no rule of ours.
_is_batched = torch._C._functorch.is_legacy_batchedtensor


def _loss_backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    """Recomputes in one pass over the inputs; see the module's docstring for why."""
    needs = list(ctx.needs_input_grad[:3])
    arguments = (*ctx.saved_tensors, upstream, *ctx.others, needs)
    if not torch.compiler.is_compiling() and _is_batched(upstream):
        gradients = _plain_gradients(*arguments)
    else:
        gradients = _call(fused_gradients, _Gradients, *arguments)
    wanted = (grad if need else None for grad, need in zip(gradients, needs, strict=True))
    return *wanted, *(None,) * len(ctx.others)


def _second_backward(plain: Callable[..., Any]) -> Callable[..., tuple[Tensor | None, ...]]:
    """The backward pass of an operator that returns gradients, through plain torch operations."""

    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        saved, others = ctx.saved_tensors, ctx.others
        present = [index for index, tensor in enumerate(saved) if tensor is not None]

        def function(*tensors: Tensor) -> Any:
            arguments: list[Tensor | None] = [None] * len(saved)
            for index, tensor in zip(present, tensors, strict=True):
                arguments[index] = tensor
            return plain(*arguments, *others)

        pull: Callable[..., Any] = torch.func.vjp(function, *(saved[index] for index in present))[1]
        results: list[Tensor | None] = [None] * (len(saved) + len(others))
        for index, gradient in zip(present, pull(cotangents), strict=True):
            results[index] = gradient if ctx.needs_input_grad[index] else None
        return tuple(results)

    return backward


def _batched(plain: Callable[..., Any]) -> Callable[..., Any]:
    """The vmap rule: `torch.vmap` of the plain form, which needs no kernel for a batch axis."""

    def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        out = torch.vmap(plain, in_dims)(*arguments)
        return out, 0 if isinstance(out, Tensor) else (0,) * len(out)

    return rule


fused_loss.register_autograd(_loss_backward, setup_context=_keep(3))
fused_gradients.register_autograd(_second_backward(_plain_gradients), setup_context=_keep(4))
fused_value_and_gradients.register_autograd(
    _second_backward(_plain_value_and_gradients), setup_context=_keep(4)
)
fused_loss.register_vmap(_batched(_plain_loss))
fused_gradients.register_vmap(_batched(_plain_gradients))
fused_value_and_gradients.register_vmap(_batched(_plain_value_and_gradients))


# torch.library's operators refuse torch.func's transforms, and their bookkeeping takes as long as a
# kernel does on small features. These say the same to both, where nobody traces or looks on.


class _Loss(torch.autograd.Function):
    forward = staticmethod(operators.loss)
    setup_context = staticmethod(_keep(3))
    backward = staticmethod(_loss_backward)
    vmap = staticmethod(_batched(_plain_loss))


class _Gradients(torch.autograd.Function):
    forward = staticmethod(operators.gradients)
    setup_context = staticmethod(_keep(4))
    backward = staticmethod(_second_backward(_plain_gradients))
    vmap = staticmethod(_batched(_plain_gradients))


class _ValueAndGradients(torch.autograd.Function):
    forward = staticmethod(operators.value_and_gradients)
    setup_context = staticmethod(_keep(4))
    backward = staticmethod(_second_backward(_plain_value_and_gradients))
    vmap = staticmethod(_batched(_plain_value_and_gradients))


def _eager(function: Any) -> Any:
    """The same outside torch.func, whose separate `setup_context` costs as much as all the rest."""

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            function.setup_context(ctx, arguments, None)
            return function.forward(*arguments)

        backward = staticmethod(function.backward)

    return Eager


class _KeptLoss(torch.autograd.Function):
    """The loss on a CPU, which keeps its gradients under upstream 1 for the first backward pass.

    They are handed over, not shared: what becomes of them there cannot harm a later pass, which
    recomputes. Gradients narrower than the arithmetic are taken only as they are, for they were
    rounded before the upstream gradient came.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        _Loss.setup_context(ctx, arguments, None)
        needs = ctx.needs_input_grad[:3]
        value, *ctx.kept = operators.value_and_gradients(*arguments[:3], None, *ctx.others, needs)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        kept, ctx.kept = ctx.kept, None
        saved = ctx.saved_tensors  # raises where the inputs were changed in place
        again = torch.is_grad_enabled()  # the gradients are to be differentiated
        # Many upstream gradients at once.
        batched = torch._C._are_functorch_transforms_active() or _is_batched(upstream)
        if kept is None or again or batched:
            return _loss_backward(ctx, upstream)
        needs = ctx.needs_input_grad[:3]
        gradients = [one if need else None for one, need in zip(kept, needs, strict=True)]
        if upstream.item() != 1:
            if any(one is not None and one.dtype != upstream.dtype for one in saved):
                return _loss_backward(ctx, upstream)
            for one in gradients:
                if one is not None:
                    one.mul_(upstream)
        return *gradients, *(None,) * len(ctx.others)


_EAGER = {function: _eager(function) for function in (_Loss, _Gradients, _ValueAndGradients)}


_PLAIN = frozenset((Tensor, torch.nn.Parameter, type(None)))


def observed(*arguments: Any) -> bool:
    """Whether a compiler, mode, tracer or tensor of a class of its own wants to see operators."""
    return torch.compiler.is_compiling() or _watched(arguments)


def _watched(arguments: tuple[Any, ...]) -> bool:
    """`observed` where nobody compiles."""
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or not _PLAIN.issuperset(map(type, arguments))
    )


def _call(
    operator: Any, function: Any, *arguments: Any, eager: Any = None, recorded: bool = True
) -> Any:
    """The operator, or what it does as a plain `autograd.Function`: `eager` outside torch.func.

    Neither where autograd has nothing to record.
    """
    if torch.compiler.is_compiling():
        return operator(*arguments)
    if torch._C._are_functorch_transforms_active():
        return function.apply(*arguments)
    if _watched(arguments[:3]):
        return operator(*arguments)
    if not (recorded and torch.is_grad_enabled()):
        return function.forward(*arguments)
    return (eager or _EAGER[function]).apply(*arguments)


# ----------------------------------------------------------------------- for `functional` to call


def loss(
    kernel: str,
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | None,
    options: LossOptions,
) -> Tensor:
    """`ulfd_torch.ulfd_loss` by a fused kernel."""
    inputs = (student, teacher, log_variance)
    # In float16 a loss scale is to come, and gradients without it would underflow.
    half = torch.float16 in [one.dtype for one in inputs if one is not None]
    keeps = kernel == "native" and torch.is_grad_enabled() and not half
    eager = _KeptLoss if keeps else None
    return _call(fused_loss, _Loss, *inputs, *flat(kernel, options), eager=eager)


def value_and_gradients(
    kernel: str,
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | None,
    upstream: Tensor | None,
    options: LossOptions,
    *,
    teacher_gradient: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """`ulfd_torch.value_and_grad` by a fused kernel, in one pass."""
    inputs = (student, teacher, log_variance, upstream)
    needs = [True, teacher_gradient, log_variance is not None]
    value, by_student, by_teacher, by_sigma = _call(
        fused_value_and_gradients,
        _ValueAndGradients,
        *inputs,
        *flat(kernel, options),
        needs,
        recorded=any(one.requires_grad for one in inputs if one is not None),
    )
    return (
        value,
        by_student,
        by_teacher if teacher_gradient else None,
        None if log_variance is None else by_sigma,
    )
