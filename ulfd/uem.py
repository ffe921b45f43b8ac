"""The uncertainty estimation module (UEM) as frozen data: what every framework builds.

The UEM predicts the log-variance σ = log θ² of the degraded image's feature ẑ. The paper's, here
`UEMSpec.official` (Fig. 3b; numbers from the authors' official code, MIT licence), has one for each
element:

    deconv    transposed convolution (kernel 2, stride 2) + ReLU: H×W → 2H×2W
    blocks    six bottleneck blocks: 1×1 C→w, 3×3 w→w, 1×1 w→C, each + ReLU; identity added after
    pool      average pooling (2, 2): 2H×2W → H×W, added to ẑ (the global skip)
    head      one more bottleneck block; σ = −(its output), never positive: θ² ≤ 1

It is a side branch, thrown away at test time (variant "side_branch", the paper and the released
checkpoint). Variant "reconstruct" (the official training script) has a second head of the same
shape whose output replaces ẑ.

The structure "pointwise" is a head alone, one 1×1 convolution C→C on ẑ itself: 30.6 times less work
with the default width.

Why the default is not the official one. All terms of the official σ = −(ẑ + pooled + head) are ≥ 0
behind ReLUs, so that σ ≤ −ẑ and an element weighs at least exp(ẑ). The real error grows with ẑ too:
the weight has the wrong sign, and 79 to 91 % of the loss lie on 1 % of the elements. On held-out
images (ResNet-8, two datasets) that cost 1.1 and 4.3 points of top-1 against cross entropy alone,
while without the skip the same UEM gained 0.3 and 0.6. Hence no global skip. The structures were
then alike, so the cheap one. One σ for each image was as good as the MSE under its best λ (within
0.02 points; a σ for each element stayed 0.1 to 0.3 behind) and tells degraded images best, so σ is
(B, 1, 1, 1). A linear output can begin at, and exceed, σ = 0, which features of any size need.
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple, Self

STRUCTURES = ("official", "pointwise")
VARIANTS = ("side_branch", "reconstruct")
OUTPUTS = ("neg_relu", "linear")
LOG_VARIANCES = ("element", "spatial", "sample")
NORMALIZATIONS = ("none", "batch")
LAYOUTS = ("NCHW", "NHWC", "NTC")
_OFFICIAL: dict[str, Any] = {
    "structure": "official",
    "output": "neg_relu",
    "log_variance": "element",
    "global_skip": True,
}
_EXPECTED = {"NCHW": "(B, {}, H, W)", "NHWC": "(B, H, W, {})", "NTC": "(B, T, {})"}


class Convolution(NamedTuple):
    """One convolution with bias; `name` is the prefix of its weights in every framework."""

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    transposed: bool = False

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of its weights, in PyTorch's layout (out, in, kernel, kernel)."""
        channels = (self.out_channels, self.in_channels)
        kernel = (self.kernel, self.kernel)
        return {
            f"{self.name}.weight": (channels[::-1] if self.transposed else channels) + kernel,
            f"{self.name}.bias": (self.out_channels,),
        }


def _choice(name: str, value: str, allowed: tuple[str, ...], where: str = "UEMSpec") -> None:
    if value not in allowed:
        raise ValueError(f"{where}: {name} is {value!r}, but must be one of {allowed}.")


def check_layout(layout: str) -> None:
    """Raises ValueError unless the layout is "NCHW", "NHWC" or, for tokens, "NTC"."""
    _choice("layout", layout, LAYOUTS, where="UEM")


@dataclass(frozen=True)
class UEMSpec:
    """A UEM for features (B, channels, H, W); `UEMSpec.official` is the paper's.

    Args:
        channels: C of the feature, 2048 for ResNet-50's layer4.
        structure: "pointwise" (a head alone, one 1×1 convolution; it has no width, blocks or
            normalization to choose) or "official" (deconv, blocks, pool, head).
        width: w, the bottleneck's channels; None is C // 4, at least 1.
        blocks: residual blocks between the transposed convolution and the pooling.
        variant: "side_branch" (paper) or "reconstruct" (official training script).
        output: "linear" (no ReLU behind the head, so that σ can be positive and θ² exceed 1) or
            "neg_relu" (official: σ = −(m + ReLU(branch)) ≤ 0, m being what the head sees).
        log_variance: σ of shape "sample" (B, 1, 1, 1), "spatial" (B, 1, H, W) or "element"
            (B, C, H, W; official); the first two by one more 3×3 convolution C → 1 (Table 6b).
        normalization: "none" (official) or "batch", batch normalisation after each convolution
            of the blocks.
        global_skip: adds ẑ to the pooled feature (official), or to the head of "pointwise"; ties
            an element's weight to exp(ẑ), see above.
    Raises:
        ValueError: an option outside its choices or range, or one that the structure lacks.
        TypeError: channels, width or blocks is no whole number.
    """

    channels: int
    width: int | None = None
    blocks: int = 6
    variant: str = "side_branch"
    output: str = "linear"
    log_variance: str = "sample"
    normalization: str = "none"
    global_skip: bool = False
    structure: str = "pointwise"

    @classmethod
    def official(cls, channels: int, **options: Any) -> Self:
        """The authors' own UEM: six blocks, the global skip, σ ≤ 0 for each element.

        >>> UEMSpec.official(2048).parameters()
        47995904

        Args:
            options: the other fields, as blocks=2 or global_skip=False.
        Raises:
            ValueError, TypeError: as `UEMSpec`.
        """
        return cls(channels, **(_OFFICIAL | options))

    def __post_init__(self) -> None:
        for name in ("channels", "width", "blocks"):
            size = getattr(self, name)
            if not isinstance(size, Integral) and (name, size) != ("width", None):
                raise TypeError(
                    f"UEMSpec: {name} is {size!r}, but must be a whole number; channels is "
                    "feature.shape[1], or feature.shape[-1] where the channels are last."
                )
        if self.channels < 1 or self.blocks < 0 or (self.width is not None and self.width < 1):
            raise ValueError(f"UEMSpec: channels and width must be >= 1, blocks >= 0; got {self}.")
        _choice("structure", self.structure, STRUCTURES)
        _choice("variant", self.variant, VARIANTS)
        _choice("output", self.output, OUTPUTS)
        _choice("log_variance", self.log_variance, LOG_VARIANCES)
        _choice("normalization", self.normalization, NORMALIZATIONS)
        inner = (self.width, self.blocks, self.normalization)
        if self.structure == "pointwise" and inner != (None, UEMSpec.blocks, "none"):
            raise ValueError(
                "UEMSpec: the structure 'pointwise' has no width, blocks or normalization; leave "
                "them out, or build the paper's UEM, as UEMSpec.official(64, blocks=2), in torch "
                f"UEM.official(64, blocks=2); got {self}."
            )

    @property
    def bottleneck_width(self) -> int:
        """w: the given width, or C // 4."""
        return self.width or max(1, self.channels // 4)

    @property
    def residual_heads(self) -> bool:
        """Whether a head's input is added to its output."""
        return self.structure == "official" or self.global_skip

    @property
    def start_layer(self) -> str | None:
        """The layer whose bias alone is −σ where its weights are 0; None where there is none.

        The official UEM has none: the skip, or the head's own, is added to what it predicts.
        """
        if self.output != "linear":
            return None
        if self.log_variance != "element":
            return "to_map"
        return None if self.residual_heads else "head"

    def checked_start_layer(self, prior_weight: float) -> str:
        """`start_layer`; raises ValueError where there is none, or where k allows no start."""
        if self.start_layer is None:
            raise ValueError(
                f"UEM: {self} has no start value: a skip or a ReLU is behind its last layer; leave "
                "start_from out, or build it with output='linear' and without the skip."
            )
        if not prior_weight > 0:
            raise ValueError(f"UEM: prior_weight is {prior_weight}, but must be > 0 for a start.")
        return self.start_layer

    @property
    def branch_names(self) -> tuple[str, ...]:
        """Prefixes of the blocks, heads last."""
        heads = ("head",) if self.variant == "side_branch" else ("head", "reconstruction")
        blocks = self.blocks if self.structure == "official" else 0
        return tuple(f"blocks.{index}" for index in range(blocks)) + heads

    def branch(self, name: str) -> tuple[Convolution, ...]:
        """The convolutions of the block or head `name`: three of a bottleneck, or one."""
        c, w = self.channels, self.bottleneck_width
        if self.structure == "pointwise":
            return (Convolution(name, c, c, 1),)
        return (
            Convolution(f"{name}.conv1", c, w, 1),
            Convolution(f"{name}.conv2", w, w, 3, padding=1),
            Convolution(f"{name}.conv3", w, c, 1),
        )

    def convolutions(self) -> Iterator[Convolution]:
        """Every convolution, in the order of the forward pass."""
        if self.structure == "official":
            yield Convolution("deconv", self.channels, self.channels, 2, stride=2, transposed=True)
        for name in self.branch_names:
            yield from self.branch(name)
        if self.log_variance != "element":
            yield Convolution("to_map", self.channels, 1, 3, padding=1)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every learned weight's name and shape, the same in every framework."""
        shapes: dict[str, tuple[int, ...]] = {}
        normalized = {
            convolution.name
            for name in self.branch_names
            for convolution in self.branch(name)
            if self.normalization == "batch"
        }
        for convolution in self.convolutions():
            shapes |= convolution.weight_shapes()
            if convolution.name in normalized:
                norm = convolution.name.replace("conv", "norm")
                shapes[f"{norm}.weight"] = shapes[f"{norm}.bias"] = (convolution.out_channels,)
        return shapes

    def parameters(self) -> int:
        """The number of learned parameters.

        >>> UEMSpec(2048).parameters(), UEMSpec.official(2048).parameters()
        (4214785, 47995904)
        """
        return sum(math.prod(shape) for shape in self.weight_shapes().values())

    def weights_remedy(self, names: Any, otherwise: str) -> str:
        """What to do about weights of these names, which are not those of the spec."""
        if self.structure == "official" or "deconv.weight" not in names:
            return otherwise
        return (
            "they are the official UEM's, which was the default once; build it with "
            f"UEMSpec.official({self.channels}), in torch UEM.official({self.channels})"
        )

    def output_shape(self, feature_shape: tuple[int, ...], layout: str = "NCHW") -> tuple[int, ...]:
        """The shape of σ for features (B, C, H, W), (B, H, W, C) or tokens (B, T, C).

        >>> UEMSpec(8, log_variance="spatial").output_shape((2, 7, 7, 8), "NHWC")
        (2, 7, 7, 1)

        Args:
            feature_shape: of ẑ.
            layout: "NCHW", "NHWC" or "NTC"; tokens count as an image of T×1 pixels.
        Raises:
            ValueError: the features have another number of channels or of axes; or the layout is
                unknown.
        """
        check_layout(layout)
        fits = len(feature_shape) == len(layout)
        if not fits or feature_shape[layout.index("C")] != self.channels:
            raise ValueError(
                f"UEM: expected features {_EXPECTED[layout].format(self.channels)}, got "
                f"{tuple(feature_shape)}; {self._remedy(feature_shape)}."
            )
        if layout == "NCHW":
            self._warn_of_channels_last(feature_shape)
        shared = {"element": "", "spatial": "C", "sample": layout[1:]}[self.log_variance]
        return tuple(
            1 if axis in shared else size for axis, size in zip(layout, feature_shape, strict=True)
        )

    def _warn_of_channels_last(self, shape: tuple[int, ...]) -> None:
        """Warns of (B, H, H, C) with H channels: it fits, but hardly any (B, C, H, W) is so."""
        _, channels, height, width = shape
        if channels == height < width:
            warnings.warn(
                f"UEM: the features {tuple(shape)} are read as (B, C, H, W) with {channels} "
                f"channels, but look like (B, H, W, C) with {width}; if they are, take "
                f"UEM({width}, layout='NHWC').",
                stacklevel=3,
            )

    def _remedy(self, shape: tuple[int, ...]) -> str:
        """What to do about features of the wrong shape."""
        layouts = [layout for layout in LAYOUTS if len(layout) == len(shape)]
        if not layouts:
            return "take the feature before pooling and flattening"
        for layout in layouts:
            if shape[layout.index("C")] == self.channels:
                axis = "second" if layout == "NCHW" else "last"
                return f"is the {axis} axis the channels? pass layout={layout!r}"
        return "build the UEM with the channels of the tapped layer"

    def multiply_accumulates(self, height: int, width: int) -> int:
        """Multiply-accumulates of one forward pass on one feature of H×W.

        The convolutions' only: no biases, normalisation or pooling. The official one's 6.28e9 are
        0.82 for the deconv, 5.24 for the six blocks and 0.22 for the head; "reconstruct" has a
        second head.

        >>> [
        ...     round(spec.multiply_accumulates(7, 7) / 1e9, 2)
        ...     for spec in (UEMSpec(2048), UEMSpec.official(2048))
        ... ]
        [0.21, 6.28]
        """
        total = 0
        for convolution in self.convolutions():
            area = height * width
            # The blocks work at twice the resolution. So does the output of the deconv, but each
            # of its pixels sees one tap of the kernel: all taps together are one area.
            if convolution.name.startswith("blocks."):
                area *= 4
            weight = next(iter(convolution.weight_shapes().values()))
            total += area * math.prod(weight)
        return total
