"""Every number of the recipes has one home: frozen dataclasses, overridable from the command line.

`PAPER` and `OFFICIAL_CODE` are the two published recipes as data (they differ; see their
comments); `presets` has complete runs by dataset.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from ulfd.uem import UEMSpec


@dataclass(frozen=True)
class Recipe:
    """Robust fine-tuning with Eq. 10. The defaults are the paper's Sec. 4."""

    iterations: int = 40_000
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    """The optimiser's L2 term; the paper names none."""
    optimizer: str = "adam"
    """adam, sgd (with momentum 0.9) or nesterov (the same with Nesterov's)."""
    decay: str = "steps"
    """Of the learning rate: steps (see milestones) or cosine (to 0)."""
    warm_up: float = 0.0
    """Fraction of the iterations over which the rate rises linearly at first."""
    view: str = "crop"
    """What a pair shows of a photograph: crop (of the whole squeezed to a square, then corrupted),
    corrupted_crop (first corrupted, then cropped) or resized_crop (of random size and shape)."""
    milestones: tuple[float, ...] = (0.125, 0.3125, 0.625)
    """Fractions of the iterations after which the learning rate is divided by 10."""
    distillation_weight: Annotated[float, arg(name="lambda", prefix_name=False)] = 0.1
    """λ of Eq. 10, for L_ULFD and for the MSE of the version without UEM alike."""
    prior_weight: float = 2.0
    """k of the log-variance term: 2 with Jeffreys' prior (Eq. 9)."""
    beta: float = 0.0
    """β of the β-weighted likelihood; 0 is the paper."""
    gamma: float | None = None
    """γ of the normalised weights exp(−γσ): 0 is the faithful loss, whose features get the MSE's
    gradient; None is the paper."""
    clamp: tuple[float, float] | None = (-10.0, 10.0)
    """Limits of the log-variance, or None; the loss is unbounded below where both features are 0.
    """
    epsilon: float = 0.0
    """ε of d²/(2·exp(σ) + ε), with which the official script computes half of exp(−σ)·d²: 1e-6
    there; of ulfd_reconstruct alone."""
    teacher: str = "self"
    """Whose feature is z: self, self_detached or frozen."""
    batch_norm: str = "separate"
    """separate, concatenated or clean_statistics."""
    layer: Annotated[str, arg(name="layer", prefix_name=False)] = "deep"
    """Which feature is distilled: deep (the last before pooling), shallow (the stem's, Sec. 4.5; of
    the ResNets), or the name of a layer of a library's network."""


PAPER = Recipe()

OFFICIAL_CODE = Recipe(
    # The authors' training script: batch 512, weight decay 1e-3, λ = 0.01 on Eq. 8, which is half
    # of Eq. 9, σ without limits. 100 epochs of 2,503 iterations, in each of which 625 end four
    # times; /10 at the 10th, 20th, 40th and 70th such end. Its network is not that of `ulfd` but of
    # `ulfd_reconstruct`: the whole script is variants/ulfd_reconstruct with this recipe.
    # What it keeps as its best is what it validated last: in its epoch 98, the last even one, after
    # 2,500 iterations.
    iterations=247_794,
    batch_size=512,
    weight_decay=1e-3,
    milestones=tuple(end / 247_794 for end in (6_256, 12_512, 25_027, 43_801)),
    distillation_weight=0.005,
    clamp=None,
)

RECIPES = {"shared": PAPER, "official_code": OFFICIAL_CODE}
"""One recipe for every row of a table; by default each has its own, see `paper.recipes`."""

# Scaled down in proportion, a run of 300 iterations would leave 37 at the full learning rate, and
# the UEM, which starts from random weights, is then never trained: in a trial of 240 iterations,
# two seeds, seen top-1 of ULFD ended four points below that of the MSE. So very short runs, all
# methods of them alike, keep the full rate for most of the time.
SHORT = Recipe(iterations=300, batch_size=128, milestones=(0.6, 0.8, 0.95))


@dataclass(frozen=True)
class Numerics:
    """How the recipe's mathematics is carried out: precision, speed and safety."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast of the network and the UEM; the losses stay float32."""
    channels_last: bool = True
    compile: bool = False
    """torch.compile of the whole step."""
    fused_optimizer: bool = False
    """Adam in one kernel; its roundings differ from the default's."""
    clip_gradient: float | None = None
    """The norm to which the gradient of all weights together is cut; the paper cuts nothing."""
    sync_batch_norm: bool = False
    """Statistics over the whole batch instead of each shard (GPUs only)."""
    max_loss: float = 1e4
    """A loss further than this from 0 counts as exploded, and ends the run like NaN."""


PLAIN = Numerics()


@dataclass(frozen=True)
class Pretraining:
    """Training of the vanilla network on clean images, where no pretrained weights exist.

    Not in the paper, which starts from torchvision's: Adam with a cosine schedule.
    """

    iterations: int = 400
    batch_size: int = 128
    learning_rate: float = 3e-3


@dataclass(frozen=True)
class Network:
    """A CIFAR-style ResNet: three stages of `blocks` basic blocks each."""

    widths: tuple[int, int, int] = (16, 32, 64)
    blocks: int = 1
    stem_stride: int = 2
    """2 halves the resolution at once, which makes the default run fit a laptop; 1 is CIFAR's."""


OWN_NETWORK = "resnet"


@dataclass(frozen=True)
class UEMOptions:
    """The UEM's options; see `ulfd.UEMSpec`. The channels are the network's last width.

    The defaults are the paper's, `UEMSpec.official`.
    """

    width: int | None = None
    blocks: int = 6
    output: str = "neg_relu"
    log_variance: str = "element"
    normalization: str = "none"
    global_skip: bool = True
    structure: str = "official"
    """official, or pointwise: one 1×1 convolution, 30 times less work."""

    def spec(self, channels: int) -> UEMSpec:
        """The specification for features of that many channels."""
        return UEMSpec(channels, **vars(self))


UEMS = {
    "official": UEMOptions(),
    "default": UEMOptions(
        structure="pointwise", output="linear", log_variance="sample", global_skip=False
    ),
}
"""UEMs by name: the paper's, and the library's own, `UEMSpec(C)`."""

CHOSEN = ("feature_distillation@lambda=0.3", "ulfd@lambda=0.03,uem=default")
CHOICE = (
    "λ of the MSE, 0.3, and of ULFD with the default UEM, 0.03, were chosen on 2026-11-28 by seen "
    "top-1 on 500 of 1,000 held-out training images, mean of the seeds 10 to 12: for λ = 0.1, 0.3, "
    "1 and 3 the MSE had 86.21, 86.26, 86.25 and 85.98, ULFD 86.15, 83.34, 33.46 and 12.76; 0.1 "
    "was the edge, so 0.03 and 0.01 were added: 86.29 and 86.13. The official UEM has the paper's "
    "λ = 0.1."
)
"""What a report on the embedded subset says of `CHOSEN`; docs/reproducing.md has the command."""


@dataclass(frozen=True)
class SmallRun:
    """One run: a dataset, the methods to compare, the seeds to repeat."""

    dataset: str = "fashion-mnist-subset"
    """fashion-mnist-subset (embedded), digits, fashion-mnist, cifar10, tiny-imagenet, imagenette;
    folder: your own photographs in class folders."""
    side: int = 32
    """Of the square images, in pixels; photographs are resized and cropped to it."""
    methods: tuple[str, ...] = ("vanilla", "cross_entropy", *CHOSEN, "ulfd@uem=official")
    """What to compare, as ulfd, ulfd@lambda=0.3,beta=0.5 or augmix+bn: a method, what it changes in
    the recipe, what adapts it to test images. Vanilla is always trained: the others start from it.
    """
    seeds: tuple[int, ...] = (0, 1)
    recipe: Recipe = SHORT
    pretraining: Pretraining = Pretraining()
    backbone: Annotated[str, arg(name="network")] = OWN_NETWORK
    """resnet, see --network.*, or another, as timm:tf_efficientnet_lite0, torchvision:resnet18."""
    network: Network = Network()
    pretrained: bool = False
    """Begin with the library's weights of that network, from this machine's caches."""
    checkpoint: Path | None = None
    """Begin with the weights in this file (.safetensors, or .pth of tensors)."""
    download: bool = False
    """Fetch the library's weights if they are not on this machine."""
    uem: UEMOptions = UEMOptions()
    train_images: int | None = None
    """Of the training images, how many every method but vanilla sees; all by default."""
    validation_images: int = 0
    """Evaluate on so many training images, left out of the training, instead of test images: for
    choosing hyperparameters."""
    evaluation_images: int = 500
    """How many test images each of the 96 evaluation sets has (balanced over the classes)."""
    frost: str = "procedural"
    """Overlays of the corruption frost: procedural (needs nothing), or photographs (ImageNet-C's,
    from the installed package imagecorruptions-imaug)."""
    data_root: Path | None = None
    """The folder with the dataset's files, for those that are not embedded."""
    out: Path | None = None
    """The run's folder; runs/<dataset> by default. An unfinished run there is continued."""
    jobs: int | None = None
    """Worker processes, each on one seed or one evaluation set; all cores by default."""
    threads: int = 1
    """Threads of each worker. Bit-identical results need the same number, whatever the jobs."""
    checkpoint_every: int = 50
    """Iterations between checkpoints."""
    dry_run: bool = False
    """Print what would be done, and stop."""

    @property
    def folder(self) -> Path:
        """Where the run keeps everything."""
        return self.out or Path("runs") / self.dataset


@dataclass(frozen=True)
class PaperTables:
    """Tables and figures of the paper on a small dataset: trains what they need, once."""

    experiment: str
    """A table or figure, one row of a table, or all; see --list."""
    dataset: str = "fashion-mnist-subset"
    """A key of `presets.PRESETS`; imagenet trains at full scale."""
    budget: str = "laptop"
    """smoke, laptop or full."""
    seeds: tuple[int, ...] | None = None
    """By default the budget's."""
    frost: str = "procedural"
    """As in a run."""
    data_root: Path | None = None
    """The folder with the dataset's files, for those that are not embedded."""
    out: Path | None = None
    """runs/paper-<dataset>-<budget> by default; all tables share the networks in it."""
    jobs: int | None = None
    """Worker processes; all cores by default."""
    list: bool = False
    """Print every row, how it is trained, what is done and what is left, and stop."""

    @property
    def folder(self) -> Path:
        """Where the networks and the tables are kept."""
        return self.out or Path("runs") / f"paper-{self.dataset}-{self.budget}"


@dataclass(frozen=True)
class ImageNetRun:
    """One row of the paper's tables at full scale: on photographs, on one GPU or many."""

    experiment: str = "table1/ulfd"
    """The row, a key of `experiments.ROWS`."""
    arch: str = "resnet50"
    """resnet50, resnext101_32x8d; resnet18 or resnet8 for trying out."""
    data_root: Path = Path("imagenet")
    """The folder with train/<class>/*.JPEG, or with WebDataset's shards train/*.tar."""
    weights: str = "pretrained"
    """What training starts from: pretrained (torchvision's V1), random, or a file, as those that a
    method's authors published; --recipe.iterations 0 takes it as it is."""
    weights_prefix: str | None = None
    """What stands before the network's names in that file; found by itself where there is one."""
    needed: Path | None = None
    """The weights of the network that a method needs besides (QualNet's i-RevNet); by default those
    that the experiment of its stage exported."""
    seed: int = 0
    recipe: Recipe = PAPER
    """By default the row's own (a baseline's that of its authors); --recipe shared is the paper's
    for all rows, --recipe official_code its script's. Each number can be overridden."""
    uem: UEMOptions = UEMOptions()
    resize: int = 256
    """Both sides of a photograph after resizing, in pixels."""
    crop: int = 224
    """The side of the random crop that the network sees, in pixels."""
    corruption_sampling: str = "cycle"
    """cycle (official code: the 75 without replacement) or independent."""
    corruption_parameters: str | None = None
    """The corruptions' parameter set by name; by default the one published for the crop's size."""
    corruption_semantics: str | None = None
    """Which public definition of the corruptions: imagenet_c, or imagecorruptions, which the paper
    trained with; by default the latter for a crop of 224, the only one it is published for."""
    frost: str = "photographs"
    """Overlays of the corruption frost: photographs (ImageNet-C's, from the installed package
    imagecorruptions-imaug), a folder with them, or procedural, which is not the paper's frost."""
    deepaugment_roots: tuple[Path, ...] = ()
    """Folders with DeepAugment's version of every training image (EDSR's, CAE's), named as below
    train/."""
    deepaugment_stand_in: bool = False
    """Without such folders, let a random network stand in for DeepAugment; tables say so."""
    numerics: Numerics = Numerics(precision="bfloat16", fused_optimizer=True)
    accumulate: int = 1
    """Parts into which each process cuts its share of a batch, when memory is short."""
    deterministic: bool = True
    """Only algorithms that give the same bits each time, where there are such."""
    device: str = "auto"
    """auto, cuda or cpu."""
    processes: int = 1
    """How many to start on this machine, one for each GPU; torchrun starts them on several."""
    workers: int = 8
    """Decoding processes of each rank; 0 decodes in the rank itself."""
    most_unreadable: int = 20
    """Files that cannot be decoded are replaced by others, until there are more than this."""
    checkpoint_every: int | None = None
    """Iterations between checkpoints, besides those by time."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints, which are written while the training goes on."""
    kept: int = 3
    """How many checkpoints stay."""
    max_hours: float | None = None
    """Save and end after so many hours, for queues with a time limit; 0.5 is half an hour."""
    tensorboard: bool = False
    """Log to TensorBoard too, into the run's folder."""
    wandb: str | None = None
    """Log to this project of Weights & Biases too."""
    evaluate: bool = False
    """Evaluate the trained network on ImageNet-C (imagenet-c and val below the data root)."""
    evaluation_subset: int | None = None
    """Evaluate on so many images only, balanced over the classes."""
    out: Path | None = None
    """The run's folder; runs/<experiment>-<arch>-seed-<seed> by default."""
    plan: bool = False
    """Print what would be computed, what it costs and what is missing, and stop."""
    plan_gpu: str = "H100"
    """The GPU of the plan, for its memory; see `plan.GPU_GIGABYTES`."""
    plan_gpus: int | None = None
    """How many of them; by default one for each process."""

    @property
    def folder(self) -> Path:
        """Where the run keeps everything."""
        name = f"{self.experiment.replace('/', '-')}-{self.arch}-seed-{self.seed}"
        return self.out or Path("runs") / name


NOT_COMPUTED = frozenset(
    "methods seeds out data_root checkpoint_every checkpoint_minutes jobs dry_run download "
    "accumulate device processes workers most_unreadable kept evaluate evaluation_subset max_hours "
    "tensorboard wandb plan plan_gpu plan_gpus".split()
)
"""Fields of runs that change no network and no measurement: a folder may grow by further methods
and seeds."""
