"""What a run costs and what it still needs, before anything runs: `--plan`."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reference_training import parallel
from reference_training.architectures import ARCHITECTURES, download_command, pretrained_file
from reference_training.config import PaperRun
from reference_training.experiments import ROWS
from reference_training.methods.base import Batch
from reference_training.trainings import training
from ulfd_torch import FeatureTap

IMAGENET_IMAGES = 1_281_167
IMAGENET_GIGABYTES = 148  # the training archive; its unpacked files take about as much
PAIRS = 2  # in the batch that is measured: one image more shows what does not grow with it


class GPU(NamedTuple):
    """A GPU's data sheet: dense tensor throughput by precision in 1e12 FLOP/s, memory in GB."""

    bfloat16: float
    float32: float  # without TF32, as torch has it by default
    memory: float


GPUS = {
    "H200": GPU(989, 67, 141),
    "H100": GPU(989, 67, 80),
    "A100-80GB": GPU(312, 19.5, 80),
    "A100-40GB": GPU(312, 19.5, 40),
    "L40S": GPU(362, 91.6, 48),
    "RTX4090": GPU(165, 82.6, 24),
}
"""By name; NVIDIA's data sheets, without sparsity."""

UTILISATION = (0.06, 0.2)
"""The share of a data sheet's throughput that convolutional training reaches: an assumption."""
DECODING_SECONDS = 0.006
"""For one ImageNet photograph on one CPU core, its bytes read from a local disk: an assumption."""


@dataclass(frozen=True)
class Cost:
    """Of one pair, forward and backward, unless said otherwise."""

    flops: int
    """Three times those of the forward pass: the backward pass has two products for each one."""
    forward_flops: int
    uem_share: float
    """Of all FLOP, the UEM's."""
    saved_bytes: int
    """Activations kept for the backward pass."""
    weights: int
    """Trained parameters, of the network and of the UEM."""
    loss_bytes: int
    """What the fused loss reads and writes."""


def make_step(run: PaperRun, classes: int) -> Any:
    """The step of a run with random weights."""
    model = ARCHITECTURES[run.arch].make(classes)
    return training(ROWS[run.experiment].training).method.make_step(model, run.recipe, run.uem)


def _counted(function: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def cost(run: PaperRun) -> Cost:
    """Counted by torch on the meta device, where nothing is computed."""
    dtype = torch.bfloat16 if run.numerics.precision == "bfloat16" else torch.float32
    with torch.device("meta"):
        step = make_step(run, classes=1000).to(dtype).train()
        images = torch.empty(PAIRS, 3, run.crop, run.crop, dtype=dtype)
        views = training(ROWS[run.experiment].training).method.second_views
        second = images.clone() if views == 1 else images[:, None].repeat(1, views, 1, 1, 1)
        batch = Batch(images, second, torch.zeros(PAIRS, dtype=torch.int64))
    saved: dict[int, int] = {}
    kept: list[Any] = []  # or a storage could be freed and its identity given to the next

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept.append(storage)
            saved[storage._cdata] = storage.nbytes()
        return tensor

    # torch (2.15) counts the backward pass of a grouped convolution as if it had no groups, so only
    # the forward pass is counted.
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward = _counted(lambda: kept.append(step(batch)))
    with torch.no_grad():
        feature = _feature(step, images)
        inner = 0 if step.uem is None else _counted(lambda: step.uem(feature))
    passes = 5 if step.uem is not None else 4  # read 3 and write 2, or read 2 and write 2
    return Cost(
        flops=3 * forward // PAIRS,
        forward_flops=forward // PAIRS,
        uem_share=inner / forward,
        saved_bytes=sum(saved.values()) // PAIRS,
        weights=sum(weight.numel() for weight in step.parameters() if weight.requires_grad),
        loss_bytes=passes * feature.numel() * feature.element_size() // PAIRS,
    )


def _feature(step: Any, images: Tensor) -> Tensor:
    with FeatureTap(step.model, step.model.feature_layer) as tap:
        step.model(images)
        return tap.take()


def _train_folder(run: PaperRun) -> Path:
    return run.data_root / "train"


def missing(run: PaperRun) -> list[str]:
    """What this machine lacks for the run, each with the commands that get it."""
    root, lacks = run.data_root, []
    train = _train_folder(run)
    shards = sorted(train.glob("*.tar")) if train.is_dir() else []
    folders = [entry for entry in train.iterdir() if entry.is_dir()] if train.is_dir() else []
    if not shards and len(folders) != 1000:
        lacks.append(
            f"ImageNet's training images: {train} has {len(folders)} class folders instead of "
            "1000. Log in at https://image-net.org/download-images, accept the terms, put "
            "ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and "
            f"ILSVRC2012_devkit_t12.tar.gz into {root}, and let torchvision arrange them "
            f"(about {2 * IMAGENET_GIGABYTES} GB while it does; needs `pip install scipy`):\n"
            f"    python -c \"from torchvision.datasets import ImageNet; ImageNet('{root}', "
            f"'train'); ImageNet('{root}', 'val')\""
        )
    if not (root / "val").is_dir():
        lacks.append(
            f"the validation images in {root / 'val'} (for the evaluation; made by the same "
            "command)"
        )
    if not (root / "imagenet-c").is_dir():
        lacks.append(
            f"ImageNet-C in {root / 'imagenet-c'} (for the evaluation):\n"
            f"    mkdir -p {root / 'imagenet-c'} && cd {root / 'imagenet-c'}\n"
            "    for part in noise blur weather digital extra; do\n"
            '      curl -LO "https://zenodo.org/records/2235448/files/$part.tar" '
            "&& tar -xf $part.tar && rm $part.tar\n"
            "    done"
        )
    if run.weights == "pretrained" and not pretrained_file(run.arch).is_file():
        lacks.append(f"the pretrained weights:\n    {download_command(run.arch)}")
    if not torch.cuda.is_available():
        lacks.append("a GPU that torch sees (on a CPU this would take months)")
    return lacks


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def text(run: PaperRun) -> str:
    """The plan of a run, for the terminal."""
    one, recipe, gpu = cost(run), run.recipe, GPUS[run.plan_gpu]
    pairs = recipe.iterations * recipe.batch_size
    total = pairs * one.flops
    ranks = run.plan_gpus or parallel.launched()
    peak = (gpu.bfloat16 if run.numerics.precision == "bfloat16" else gpu.float32) * 1e12
    slow, fast = (total / (peak * share * ranks) / 3600 for share in UTILISATION)
    share = recipe.batch_size // ranks // run.accumulate
    # Weight, gradient and Adam's two moments; DDP's buckets hold the gradients themselves.
    fixed = one.weights * 4 * 4
    images = 2 * 3 * run.crop**2 * 4 * recipe.batch_size // ranks
    memory = (fixed + images + share * one.saved_bytes) / 1e9
    saved = one.weights * 4 * 3 / 1e9
    space = shutil.disk_usage(_existing(run.folder.absolute())).free / 1e9
    rate = pairs / (fast * 3600) if total else 0.0
    lines = [
        f"{run.experiment}, {run.arch}, into {run.folder}",
        f"  pairs           {recipe.iterations} iterations x {recipe.batch_size} = {pairs:,} "
        f"({pairs / IMAGENET_IMAGES:.1f} epochs of ImageNet)",
        f"  work            {one.flops / 1e9:.1f} GFLOP a pair, forward and backward "
        f"({one.forward_flops / 2e9:.1f} GMAC forward), the UEM's share {one.uem_share:.0%}; "
        f"{total:.2g} FLOP in all",
        f"  loss            {one.loss_bytes / 1e6:.2f} MB to move for a pair's value and gradients",
        f"  parameters      {one.weights:,}",
        f"  {ranks} x {run.plan_gpu:<12}  {fast:.1f} to {slow:.1f} h at {UTILISATION[1]:.0%} to "
        f"{UTILISATION[0]:.0%} of {peak / 1e12:g} TFLOP/s ({run.numerics.precision}; the shares "
        "are an assumption, the corruptions come on top)",
        f"  decoding        {rate * DECODING_SECONDS:.0f} CPU cores to keep up with the faster, "
        f"at {DECODING_SECONDS * 1e3:.0f} ms a photograph (an assumption)",
        f"  GPU memory      {memory:.0f} GB a rank for {share} pairs at once, of {gpu.memory:g} "
        "(weights, optimiser, images, activations; no workspace)"
        + ("; raise --accumulate" if memory > gpu.memory else ""),
        f"  disk            {run.kept + 1} x {saved:.2f} GB of checkpoints (free: {space:.0f} GB); "
        f"the data {IMAGENET_GIGABYTES} GB",
    ]
    lacks = missing(run)
    lines.append("missing on this machine:" if lacks else "nothing is missing on this machine")
    lines += [f"  [ ] {item}" for item in lacks]
    return "\n".join(lines)
