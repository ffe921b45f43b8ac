"""The loss and the UEM as modules: thin shells over `functional` and `ulfd.uem`."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, distributed, nn

from ulfd import checks
from ulfd.kernels import registry
from ulfd.options import Likelihood, check_member, loss_options, member_options
from ulfd.uem import Convolution, UEMSpec, check_layout
from ulfd_torch.functional import check_dense, ulfd_loss
from ulfd_torch.layers import layer_output, layout_of
from ulfd_torch.statistics import LossStatistics, loss_statistics


class ULFDLoss(nn.Module):
    """λ · reduce(exp(−σ)·(z − ẑ)² + k·σ) with its hyperparameters kept (Eq. 9).

    >>> import torch
    >>> loss = ULFDLoss(weight=0.1)
    >>> loss(torch.zeros(4, 8), torch.ones(4, 8), torch.zeros(4, 8))
    tensor(0.1000)

    Args: as in `ulfd_torch.ulfd_loss`.
    Raises:
        ValueError: an option is unknown or outside its range; the weights may not be negative.
        TypeError: a weight is no number, or a tensor that requires gradients.
    """

    def __init__(
        self,
        *,
        prior_weight: float = 2.0,
        weight: float = 1.0,
        reduction: str = "mean",
        beta: float = 0.0,
        clamp: tuple[float, float] | None = None,
        likelihood: Likelihood = "gaussian",
        gamma: float | None = None,
        implementation: str | None = None,
    ) -> None:
        super().__init__()
        # A mistake shows here, not an epoch later.
        options = loss_options(
            prior_weight=prior_weight,
            weight=weight,
            reduction=reduction,
            beta=beta,
            clamp=clamp,
            likelihood=likelihood,
            gamma=gamma,
        )
        for name in ("prior_weight", "weight"):
            value = getattr(options, name)
            if not value >= 0:  # nor NaN
                raise ValueError(f"ulfd_loss: {name} is {value}, but must be >= 0.")
        registry.check_name(implementation)
        self.prior_weight = prior_weight
        self.weight = weight
        self.reduction = reduction
        self.beta = beta
        self.clamp = clamp
        self.likelihood = likelihood
        self.gamma = gamma
        self.implementation = implementation
        self.member: str | None = None  # its name in `ulfd.FAMILY`, where it was made by it

    @classmethod
    def named(cls, name: str, *, weight: float = 1.0, **options: Any) -> Self:
        """A member of `ulfd.FAMILY` under the weight λ, which multiplies the member's own factor.

        >>> ULFDLoss.named("gaussian_nll", weight=0.1).weight  # λ·½
        0.05

        Args:
            options: "reduction", "clamp" and "implementation", as in `ulfd_torch.ulfd_loss`; the
                member's likelihood may have other parameters, as ("student_t", 10.0).
        Returns:
            the loss; called, it raises ValueError where σ is given and the member has none, or
            the other way round.
        Raises:
            KeyError: there is no such member; the message lists them.
            TypeError: an option is the member's own.
        """
        loss = cls(**member_options(name, weight, **options))
        loss.member = name
        return loss

    def forward(
        self, student: Tensor, teacher: Tensor, log_variance: Tensor | float | None = None
    ) -> Tensor:
        """The loss of student ẑ, teacher z and log-variance σ; see `ulfd_torch.ulfd_loss`."""
        check_member(self.member, log_variance)
        return ulfd_loss(
            student,
            teacher,
            log_variance,
            prior_weight=self.prior_weight,
            weight=self.weight,
            reduction=self.reduction,
            beta=self.beta,
            clamp=self.clamp,
            likelihood=self.likelihood,
            gamma=self.gamma,
            implementation=self.implementation,
        )

    def statistics(
        self, student: Tensor, teacher: Tensor, log_variance: Tensor | float | None = None
    ) -> LossStatistics:
        """What to log of the same inputs, with this loss's clamp; see `loss_statistics`."""
        return loss_statistics(student, teacher, log_variance, clamp=self.clamp)

    def extra_repr(self) -> str:
        return (
            f"prior_weight={self.prior_weight}, weight={self.weight}, "
            f"reduction={self.reduction!r}, beta={self.beta}, clamp={self.clamp}, "
            f"likelihood={self.likelihood!r}, gamma={self.gamma}, "
            f"implementation={self.implementation!r}"
        )


def _convolution(layer: Convolution) -> nn.Conv2d | nn.ConvTranspose2d:
    kind = nn.ConvTranspose2d if layer.transposed else nn.Conv2d
    return kind(
        layer.in_channels,
        layer.out_channels,
        layer.kernel,
        stride=layer.stride,
        padding=layer.padding,
    )


class _Bottleneck(nn.Module):
    """The branch 1×1, 3×3, 1×1 of a residual block, a ReLU after each; the caller adds x."""

    def __init__(self, spec: UEMSpec, name: str, *, last_relu: bool = True) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = map(_convolution, spec.branch(name))
        widths = (spec.bottleneck_width, spec.bottleneck_width, spec.channels)
        self.norm1, self.norm2, self.norm3 = (
            nn.BatchNorm2d(width) if spec.normalization == "batch" else nn.Identity()
            for width in widths
        )
        self.last_relu = last_relu

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm1(self.conv1(x)).relu()
        branch = self.norm2(self.conv2(branch)).relu()
        branch = self.norm3(self.conv3(branch))
        return branch.relu() if self.last_relu else branch


class _Pointwise(nn.Conv2d):
    """The branch of one 1×1 convolution, a ReLU after it; the caller adds x."""

    def __init__(self, spec: UEMSpec, name: str, *, last_relu: bool = True) -> None:
        (layer,) = spec.branch(name)
        super().__init__(layer.in_channels, layer.out_channels, layer.kernel)
        self.last_relu = last_relu

    def forward(self, x: Tensor) -> Tensor:
        branch = super().forward(x)
        return branch.relu() if self.last_relu else branch


_HEADS: dict[str, type[_Bottleneck | _Pointwise]] = {
    "official": _Bottleneck,
    "pointwise": _Pointwise,
}


class Reconstruction(NamedTuple):
    """What a UEM of the variant "reconstruct" returns."""

    log_variance: Tensor
    feature: Tensor  # replaces ẑ, in the loss and in the classifier


def _to_image(feature: Tensor, layout: str) -> Tensor:
    """A view (B, C, H, W); tokens (B, T, C) are an image of T×1."""
    if layout == "NTC":
        feature = feature.unsqueeze(2)
    return feature if layout == "NCHW" else feature.permute(0, 3, 1, 2)


def _from_image(image: Tensor, layout: str) -> Tensor:
    """The inverse of `_to_image`."""
    feature = image if layout == "NCHW" else image.permute(0, 2, 3, 1)
    return feature.squeeze(2) if layout == "NTC" else feature


class UEM(nn.Module):
    """The uncertainty estimation module: feature ẑ (B, C, H, W) to log-variance σ.

    One σ for each image, by one 1×1 convolution without the paper's global skip; `UEM.official` is
    the paper's (Fig. 3b). `ulfd.uem` says why.

    >>> import torch
    >>> UEM(64)(torch.rand(2, 64, 7, 7)).shape
    torch.Size([2, 1, 1, 1])
    >>> UEM(64, layout="NHWC", log_variance="spatial")(torch.rand(2, 7, 7, 64)).shape
    torch.Size([2, 7, 7, 1])

    Args:
        spec: the channels C, or a whole `ulfd.UEMSpec`.
        layout: of ẑ and σ: "NCHW"; "NHWC" for (B, H, W, C), as Swin has it; or "NTC" for tokens
            (B, T, C), which count as an image of T×1. The weights are the same in each.
        options: the other fields of `ulfd.UEMSpec`, when `spec` is a number of channels.
    Raises:
        ValueError, TypeError: as `ulfd.UEMSpec`; a whole one was given with options; or the
            layout is unknown.
    """

    started: bool = True
    """Whether its weights are to be kept as they are: trained, loaded or started already."""

    def __init__(self, spec: UEMSpec | int, *, layout: str = "NCHW", **options: Any) -> None:
        super().__init__()
        check_layout(layout)
        if not isinstance(spec, UEMSpec):
            spec = UEMSpec(spec, **options)
        elif options:
            raise TypeError(f"UEM: give a UEMSpec or channels and options, not both: {options}.")
        self.spec = spec
        self.layout = layout
        self.started = spec.start_layer is None
        layers = {layer.name: layer for layer in spec.convolutions()}
        if spec.structure == "official":
            self.deconv = _convolution(layers["deconv"])
            self.blocks = nn.ModuleList(
                _Bottleneck(spec, f"blocks.{index}") for index in range(spec.blocks)
            )
            self.pool = nn.AvgPool2d(2, 2)
        head = _HEADS[spec.structure]
        self.head = head(spec, "head", last_relu=spec.output == "neg_relu")
        if spec.variant == "reconstruct":
            self.reconstruction = head(spec, "reconstruction")
        if spec.log_variance != "element":
            self.to_map = _convolution(layers["to_map"])

    @classmethod
    def official(cls, channels: int, *, layout: str = "NCHW", **options: Any) -> Self:
        """The authors' own UEM, σ of ẑ's shape with the global skip: `ulfd.UEMSpec.official`."""
        return cls(UEMSpec.official(channels, **options), layout=layout)

    @classmethod
    def for_layer(
        cls,
        model: nn.Module,
        layer: str,
        example: Tensor,
        *,
        official: bool = False,
        layout: str | None = None,
        **options: Any,
    ) -> Self:
        """A UEM whose channels and layout are those of a layer, found by one forward pass.

        The pass leaves the model as it was: its modes, running statistics, gradients and the
        generators of random numbers.

        >>> from torchvision.models import resnet18
        >>> uem = UEM.for_layer(resnet18(), "layer4", torch.rand(2, 3, 64, 64))
        >>> uem.spec.channels, uem.layout
        (512, 'NCHW')

        Args:
            model: as the step's.
            layer: a name of `model.named_modules()`; see `suggest_layers`.
            example: a batch of images (B, 3, H, W), as the model takes them.
            official: `UEM.official` in the place of the default.
            layout: names it where the shapes leave it open.
            options: the other fields of `ulfd.UEMSpec`.
        Returns:
            the UEM, on the feature's device.
        Raises:
            ValueError: there is no such layer, its output is no feature map or tokens, or may be
                of either layout; the model does not take the example; or as `ulfd.UEMSpec`.
            TypeError: example is no tensor, or the layer's output is none.
        """
        feature = layer_output(model, layer, example)
        layout = layout_of(model, layer, feature, example, layout)
        channels = feature.shape[layout.index("C")]
        make = cls.official if official else cls
        return make(channels, layout=layout, **options).to(feature.device)

    @torch.no_grad()
    def start_from(
        self,
        student: Tensor,
        teacher: Tensor,
        *,
        prior_weight: float = 2.0,
        clamp: tuple[float, float] | None = None,
    ) -> None:
        """Makes σ the one number that fits a first batch best, log(mean (z − ẑ)²/k).

        The last layer's weights become 0, its bias −σ. In a process group the mean is that of all
        ranks, each of which must call this. `SelfDistillation` does so in its first training step,
        unless the UEM has run in training or its weights were loaded.

        >>> uem, student = UEM(4), torch.zeros(2, 4, 7, 7)
        >>> uem.start_from(student, student + 2)
        >>> uem(student).flatten()  # log(2²/2)
        tensor([0.6931, 0.6931], grad_fn=<ViewBackward0>)

        Args:
            student: ẑ, in the UEM's layout.
            teacher: z, the same shape.
            prior_weight: k of the loss, > 0.
            clamp: of the loss, beyond which σ would have no gradient.
        Raises:
            ValueError: σ of this UEM is never one number, as the official one's; or k <= 0.
        """
        name = self.spec.checked_start_layer(prior_weight)
        mean = ulfd_loss(student.detach(), teacher.detach())
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(mean)
            mean /= distributed.get_world_size()
        best = (mean / prior_weight).log()
        # Features that are equal, or not finite, say nothing about σ.
        best = torch.where(best.isfinite(), best, torch.zeros_like(best))
        if clamp is not None:
            best = best.clamp(*clamp)
        layer: Any = self.get_submodule(name)
        layer.weight.zero_()
        layer.bias.copy_(-best)
        self.started = True

    def extra_repr(self) -> str:
        return f"layout={self.layout!r}"

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *others: Any
    ) -> None:
        names = {name.removeprefix(prefix) for name in state_dict if name.startswith(prefix)}
        self.started = self.started or bool(names)
        _, strict, *_, errors = others
        if strict and names and not names >= self.spec.weight_shapes().keys():
            otherwise = "build the UEM with the options of the one that was saved"
            errors.append(f"UEM: {self.spec.weights_remedy(names, otherwise)}.")
        super()._load_from_state_dict(state_dict, prefix, *others)

    def forward(self, student: Tensor) -> Tensor | Reconstruction:
        """σ for the features ẑ in the layout; the variant "reconstruct" adds the new feature.

        Raises:
            ValueError: the features have another number of channels.
            TypeError: they are no dense tensor of a floating-point dtype.
        """
        check_dense("UEM", "features", student)
        checks.check_dtypes("UEM", features=student.dtype)
        self.spec.output_shape(tuple(student.shape), self.layout)
        if self.training and torch.is_grad_enabled():
            self.started = True
        student = _to_image(student, self.layout)
        middle = student if self.spec.structure == "pointwise" else self._middle(student)
        added = middle if self.spec.residual_heads else 0.0
        log_variance = _from_image(-self._log_precision(added + self.head(middle)), self.layout)
        if self.spec.variant == "side_branch":
            return log_variance
        feature = _from_image(added + self.reconstruction(middle), self.layout)
        return Reconstruction(log_variance, feature)

    def _middle(self, student: Tensor) -> Tensor:
        """What the heads of the official structure see."""
        x = self.deconv(student).relu()
        for block in self.blocks:
            x = x + block(x)
        pooled = self.pool(x)
        return student + pooled if self.spec.global_skip else pooled

    def _log_precision(self, element: Tensor) -> Tensor:
        """−σ = log θ⁻²: of each element, or reduced to a map or a number."""
        if self.spec.log_variance == "element":
            return element
        one = self.to_map(element)
        if self.spec.output == "neg_relu":
            one = one.relu()
        return one if self.spec.log_variance == "spatial" else one.mean((2, 3), keepdim=True)
