"""What is measured: the only place for shapes, σ kinds, dtypes and sizes. Data; imports nothing.

`python -m benchmarks.cpu`, `gpu`, `corruptions`, `parity` and `step_cost`, from which the published
tables are made, and the suite `pytest benchmarks` measure the same problems. Those in a
`..._BY_DEFAULT` are what the suite takes without `--everything`.
"""

from dataclasses import dataclass
from math import prod

GRADIENTS, FORWARD, AUTOGRAD = "value and gradients", "forward", "autograd"
BOTH = "forward and backward"
ITEMSIZES = {"float32": 4, "bfloat16": 2}
KEPT_AXES = {"full": (0, 1, 2, 3), "spatial": (0, 2, 3), "sample": (0,), "channel": (1,)}
SIGMAS = tuple(KEPT_AXES)
"""Kinds of σ: (B, C, H, W), (B, 1, H, W), (B, 1, 1, 1) and (1, C, 1, 1)."""


def sigma_shape(shape: tuple[int, ...], sigma: str) -> tuple[int, ...]:
    """σ's shape for features of a shape; `sigma` is one of `SIGMAS`."""
    return tuple(size if axis in KEPT_AXES[sigma] else 1 for axis, size in enumerate(shape))


@dataclass(frozen=True)
class LossProblem:
    """One problem of the loss and what is asked of it.

    Args:
        shape: of the features.
        dtype: of features and σ, a key of `ITEMSIZES`.
        sigma: one of `SIGMAS`.
        layout: "NCHW" or "NHWC", the order in memory.
        task: FORWARD, the value alone; GRADIENTS, by any means; AUTOGRAD or BOTH, by `backward`.
        upstream: the gradient arriving at the loss.
    """

    shape: tuple[int, ...] = (64, 2048, 7, 7)
    dtype: str = "float32"
    sigma: str = "full"
    layout: str = "NCHW"
    task: str = GRADIENTS
    upstream: float = 1.0

    @property
    def sigma_shape(self) -> tuple[int, ...]:
        """σ's shape."""
        return sigma_shape(self.shape, self.sigma)

    @property
    def reads(self) -> int:
        """Arrays of the features' size that one pass must read: ẑ, z and a full σ."""
        return 3 if self.sigma == "full" else 2

    @property
    def writes(self) -> int:
        """Arrays of the features' size that it must write: the gradients of ẑ and a full σ."""
        return 0 if self.task == FORWARD else self.reads - 1

    @property
    def one_pass_bytes(self) -> int:
        """What one pass must move."""
        return (self.reads + self.writes) * prod(self.shape) * ITEMSIZES[self.dtype]

    def __str__(self) -> str:
        task = self.task + (f", upstream {self.upstream}" if self.upstream != 1 else "")
        shape = "×".join(map(str, self.shape))
        return f"{shape}, {self.sigma}, {self.dtype}, {self.layout}: {task}"


SMALL = (8, 64, 8, 8)
CPU_LOSSES = (
    LossProblem(),
    *(LossProblem(sigma=sigma) for sigma in SIGMAS[1:]),
    *(LossProblem(dtype="bfloat16", sigma=sigma) for sigma in SIGMAS),
    *(LossProblem(layout="NHWC", sigma=sigma) for sigma in ("full", "channel")),
    LossProblem(task=AUTOGRAD),
    LossProblem(task=AUTOGRAD, upstream=0.37),
    LossProblem(task=FORWARD),
    *(LossProblem(shape=shape) for shape in (SMALL, (64, 512, 7, 7), (256, 2048, 7, 7))),
    LossProblem(shape=(16, 197, 768)),
    LossProblem(shape=SMALL, task=AUTOGRAD),
    LossProblem(shape=(64, 512, 7, 7), task=AUTOGRAD),
)
CPU_LOSSES_BY_DEFAULT = (
    LossProblem(),
    LossProblem(sigma="sample"),
    LossProblem(dtype="bfloat16"),
    LossProblem(task=AUTOGRAD, upstream=0.37),
    LossProblem(task=FORWARD),
    LossProblem(shape=SMALL),
)

GPU_SHAPE = (256, 2048, 7, 7)  # ResNet-50's last feature, batch 256
GPU_LOSSES = tuple(
    LossProblem(GPU_SHAPE, dtype, sigma, layout, task, upstream=0.37)
    for dtype in ITEMSIZES
    for sigma in SIGMAS
    # A full σ and one of samples: the same memory and the same kernel in both orders.
    for layout in (("NCHW", "NHWC") if sigma in ("spatial", "channel") else ("NCHW",))
    for task in (FORWARD, BOTH)
)
GPU_LOSSES_BY_DEFAULT = tuple(problem for problem in GPU_LOSSES if problem.sigma == "full")
GPU_COLUMNS = (("spatial", "NCHW"), ("channel", "NCHW"), ("channel", "NHWC"))
"""σ and memory of the problems by which `over_columns` is tuned."""

PARITY_SHAPE = (8, 16, 7, 7)
PARITY_UPSTREAM = 0.375

CORRUPTED_BATCH, SIDE = 32, 224
PEER_IMAGES = 4  # in a round of a peer, which works on one after another anyway
CORRUPTION_SEVERITY_BY_DEFAULT = 3


@dataclass(frozen=True)
class UEMProblem:
    """One pass of the UEM.

    Args:
        channels, batch, side: of the features (batch, channels, side, side), float32.
        structure: of `ulfd.UEMSpec`: "official" is the paper's UEM, "pointwise" the default one.
        task: FORWARD, or BOTH with the gradients of the features and of all weights.
    """

    channels: int
    batch: int
    structure: str = "official"
    task: str = BOTH
    side: int = 7

    def __str__(self) -> str:
        shape = f"{self.batch}×{self.channels}×{self.side}×{self.side}"
        return f"UEM {self.structure}, {shape}: {self.task}"


UEMS = tuple(
    UEMProblem(channels, batch, structure, task)
    for channels, batch in ((512, 8), (2048, 2))
    for structure in ("official", "pointwise")
    for task in (FORWARD, BOTH)
)
UEMS_BY_DEFAULT = (
    UEMProblem(512, 8, "official", BOTH),
    UEMProblem(512, 8, "pointwise", FORWARD),
    UEMProblem(512, 8, "pointwise", BOTH),
)


@dataclass(frozen=True)
class StepProblem:
    """One training step.

    Args:
        network: a key of `step_cost.NETWORKS`.
        side: of the images (pairs, 3, side, side), float32.
        pairs: of a clean and a degraded image, in a batch.
    """

    network: str
    side: int = 224
    pairs: int = 8


STEPS = (StepProblem("ResNet-8", 32, 128), StepProblem("ResNet-18"), StepProblem("ResNet-50"))
STAGED_STEPS = (StepProblem("ResNet-18", pairs=2), StepProblem("ResNet-50", pairs=2))
"""Those that are set beside the making of their pairs; the first is what the suite takes."""

PHOTOGRAPH = (500, 375)  # width and height, as of most of ImageNet's files
PHOTOGRAPHS = 75  # each of the 15 corruptions at each of the 5 severities once
