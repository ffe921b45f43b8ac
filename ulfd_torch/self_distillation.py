"""Eq. 10 as one module: cross entropy on both images plus the distillation between them."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from ulfd_torch.features import FeatureTap, described
from ulfd_torch.modules import UEM, ULFDLoss
from ulfd_torch.statistics import LossStatistics, loss_statistics
from ulfd_torch.step_checks import (
    check_gradient,
    check_initialised,
    check_pairs,
    check_parts,
    explained,
    judged,
    logits_of,
    warn_of_a_large_uem,
)

TaskLoss = Callable[[Tensor, Tensor], Tensor]
TEACHERS = ("self", "self_detached", "frozen")
BATCH_NORMS = ("separate", "concatenated", "clean_statistics")


class SelfDistillationLoss(NamedTuple):
    """The joint loss and its parts; only `total` is to be backpropagated."""

    total: Tensor  # Eq. 10
    clean: Tensor  # CE(y, f(x))
    degraded: Tensor  # CE(y, f(x̃))
    distillation: Tensor  # λ·L_ULFD
    log_variance: Tensor | None  # σ, for logging
    clean_logits: Tensor
    degraded_logits: Tensor
    statistics: LossStatistics | None = None  # of the distillation, where asked for

    def __repr__(self) -> str:
        """The numbers of the losses, which waits for the device, and the shapes of the rest."""
        parts = (f"{name}={_brief(value)}" for name, value in self._asdict().items())
        return f"SelfDistillationLoss({', '.join(parts)})"


def _brief(value: Tensor | LossStatistics | None) -> str:
    if isinstance(value, Tensor):
        number = value.dim() == 0 and not value.is_meta
        return f"{value.item():.4g}" if number else f"tensor{tuple(value.shape)}"
    if value is None:
        return "None"
    numbers = zip(value._fields, torch.stack(list(value)).tolist(), strict=True)
    return f"({', '.join(f'{name}={number:.4g}' for name, number in numbers)})"


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Normalisation uses the batch's statistics but leaves its running averages alone."""
    tracking = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats
    ]
    # Instance normalisation updates its averages whatever the flag says, but not by a share of 0.
    changed: list[tuple[nn.Module, str, object]] = [
        (module, "momentum", 0.0)
        if isinstance(module, nn.modules.instancenorm._InstanceNorm)
        else (module, "track_running_stats", False)
        for module in tracking
    ]
    before = [getattr(module, name) for module, name, _ in changed]
    for module, name, value in changed:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(changed, before, strict=True):
            setattr(module, name, value)


class SelfDistillation(nn.Module):
    """L = CE(y, f(x)) + CE(y, f(x̃)) + λ·L_ULFD(z, ẑ, σ) (Eq. 10).

    Holds the model and the UEM, so that one optimiser, one DistributedDataParallel and one
    checkpoint serve both; the model's own weights stay those of the plain network. A forward hook
    reads the layer during a step, and keeps nothing outside it; `close` removes it.

    >>> from ulfd_torch import UEM
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    >>> step = SelfDistillation(model, layer="1", uem=UEM(8))
    >>> clean, degraded = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)
    >>> step(clean, degraded, torch.tensor([0, 1, 2, 3])).total.backward()

    Args:
        model: a classifier, images (B, 3, H, W) to logits (B, classes), or to something that has
            them as `.logits`, or as the first tensor of a tuple.
        layer: the name of the layer whose output is distilled, as "layer4"; `suggest_layers` names
            those that suit.
        uem: predicts σ from ẑ, a `UEM` or any module whose output broadcasts to ẑ; None for the
            deterministic version ("Ours w/o UEM"). A `UEM` that nobody has trained begins with
            `UEM.start_from` of the first training step's features. One with more weights than the
            model is warned of.
        loss: the distillation loss with its weight; `ULFDLoss(weight=0.1)` by default (λ of the
            paper). Where its `gamma` is a number, the UEM sees ẑ detached.
        faithful: the network gets the MSE, and the UEM its likelihood, which does not reach the
            network (Stirn et al. 2023): short for `loss=ULFDLoss(weight=0.1, gamma=0.0)`.
        teacher: "self" (official code: gradients flow through z), "self_detached", or "frozen"
            (a copy of the model as it is now, in eval mode, never trained; its weights, `frozen`,
            are among the step's, without gradients).
        batch_norm: "separate" (official code: two passes, degraded first, both update the running
            averages), "concatenated" (one pass over both), or "clean_statistics" (two passes,
            only the clean one updates the running averages).
        task_loss: (logits, labels) to a scalar, in the place of the cross entropy: with label
            smoothing, class weights, `nn.BCEWithLogitsLoss()`, ...
        statistics: whether the result has `LossStatistics`; an attribute too, to be switched on
            for every hundredth step, say. Under `torch.compile` each of the two is a graph of its
            own, compiled when first used.
    Raises:
        ValueError: an unknown option or layer, or a frozen teacher of a model whose lazy layers
            have no weights yet.
        TypeError: the model, layer, uem or loss is of a wrong kind.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layer: str,
        uem: nn.Module | None = None,
        loss: nn.Module | None = None,
        teacher: str = "self",
        batch_norm: str = "separate",
        faithful: bool = False,
        task_loss: TaskLoss = functional.cross_entropy,
        statistics: bool = False,
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("teacher", teacher, TEACHERS),
            ("batch_norm", batch_norm, BATCH_NORMS),
        ):
            if value not in allowed:
                raise ValueError(f"SelfDistillation: {name} is {value!r}; use one of {allowed}.")
        check_parts(uem, loss, task_loss)
        if teacher == "frozen":
            check_initialised(model)
        if faithful and loss is not None and getattr(loss, "gamma", None) is None:
            raise ValueError(
                f"SelfDistillation: faithful is the loss's gamma, but {described(loss)} has none; "
                "leave loss out, or give one with it: loss=ULFDLoss(weight=0.1, gamma=0.0)."
            )
        if isinstance(uem, UEM):
            warn_of_a_large_uem(model, uem.spec)
        # The copy comes before the tap, which would otherwise be copied along.
        frozen = copy.deepcopy(model).eval().requires_grad_(False) if teacher == "frozen" else None
        self.model = model
        self.uem = uem
        default = ULFDLoss(weight=0.1, gamma=0.0 if faithful else None)
        self.loss = default if loss is None else loss
        self.teacher = teacher
        self.batch_norm = batch_norm
        self.task_loss = task_loss
        self.statistics = statistics
        self._tap = FeatureTap(model, layer)
        self._tap.pause()  # the model alone, in an evaluation say, keeps nothing
        # A part of the step's state: a resumed training needs it, and DDP shares it.
        self.frozen = frozen
        self._frozen_tap = FeatureTap(frozen, layer) if frozen is not None else None

    def close(self) -> None:
        """Removes the hook for good: the model is as it was given, as `torch.jit.script` needs it.

        The step cannot be called again; a new one can be made of the same model and UEM.
        """
        self._tap.close()
        if self._frozen_tap is not None:
            self._frozen_tap.close()

    def train(self, mode: bool = True) -> Self:
        """As of any module; the frozen teacher stays in eval mode."""
        super().train(mode)
        if self.frozen is not None:
            self.frozen.eval()
        return self

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self._tap.resume()
        try:
            return logits_of(self.model(images)), self._tap.take()
        except (RuntimeError, ValueError) as error:
            better = explained(images, error)
            if better is None:
                raise
            raise better from error
        finally:
            self._tap.pause()

    def _both(self, clean: Tensor, degraded: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits and feature of the clean, then of the degraded images."""
        if self.batch_norm == "concatenated":
            logits, feature = self._run(torch.cat([clean, degraded]))
            (y, y_hat), (z, z_hat) = logits.chunk(2), feature.chunk(2)
            return y, z, y_hat, z_hat
        if self.batch_norm == "clean_statistics":
            with frozen_statistics(self.model):
                y_hat, z_hat = self._run(degraded)
        else:
            y_hat, z_hat = self._run(degraded)
        y, z = self._run(clean)
        return y, z, y_hat, z_hat

    def _teacher_feature(self, clean: Tensor, z: Tensor) -> Tensor:
        if self.frozen is not None and self._frozen_tap is not None:
            if not torch.compiler.is_compiling():  # for who moves the model, and not the step
                self.frozen.to(clean.device)
            with torch.no_grad():
                self.frozen(clean)
            return self._frozen_tap.take()
        return z.detach() if self.teacher == "self_detached" else z

    @property
    def _separates(self) -> bool:
        """Whether the UEM's likelihood is not to train the network."""
        return getattr(self.loss, "gamma", None) is not None

    def _start(self, z_hat: Tensor, z: Tensor) -> None:
        """Gives the UEM its start value, in the first training step."""
        uem = self.uem
        if self.training and torch.is_grad_enabled() and isinstance(uem, UEM) and not uem.started:
            k = getattr(self.loss, "prior_weight", 2.0) or 2.0
            clamp = getattr(self.loss, "clamp", None)
            uem.start_from(z_hat, z, prior_weight=k, clamp=clamp)

    def forward(self, clean: Tensor, degraded: Tensor, labels: Tensor) -> SelfDistillationLoss:
        """The joint loss of a batch of pairs.

        Args:
            clean: x, (B, 3, H, W).
            degraded: x̃, the same images degraded, the same shape.
            labels: y, (B,), class indices, or what `task_loss` takes.
        Raises:
            ValueError: clean and degraded differ in shape, or are one image where the model has
                batch normalisation; or the cross entropy does not take the labels.
            TypeError: one of the three is no tensor, or the model takes no such dtype.
            RuntimeError: the step was closed, ẑ has no gradient, or the layer's output was changed
                in place.
        """
        check_pairs(clean=clean, degraded=degraded, labels=labels)
        y, z, y_hat, z_hat = self._both(clean, degraded)
        check_gradient(self._tap.layer, z_hat, y_hat)
        teacher = self._teacher_feature(clean, z)
        log_variance = None
        if self.uem is not None:
            self._start(z_hat, teacher)
            predicted = self.uem(z_hat.detach() if self._separates else z_hat)
            if isinstance(predicted, Tensor):
                log_variance = predicted
            else:
                raise ValueError(
                    "SelfDistillation: a UEM of the variant 'reconstruct' replaces the feature "
                    "inside the classifier; use the variant 'side_branch' here."
                )
        distillation = self.loss(z_hat, teacher, log_variance)
        statistics = None
        if self.statistics:
            clamp = getattr(self.loss, "clamp", None)
            statistics = loss_statistics(z_hat, teacher, log_variance, clamp=clamp)
        clean_loss = judged(self.task_loss, y, labels)
        degraded_loss = judged(self.task_loss, y_hat, labels)
        return SelfDistillationLoss(
            total=clean_loss + degraded_loss + distillation,
            clean=clean_loss,
            degraded=degraded_loss,
            distillation=distillation,
            log_variance=log_variance,
            clean_logits=y,
            degraded_logits=y_hat,
            statistics=statistics,
        )
