"""What a run costs and what it still needs, before anything runs: `--plan`."""

import shutil
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reference_training.config import ImageNetRun
from reference_training.data.batch import Batch
from reference_training.experiments.job import PUBLISHED, TRAIN, VALIDATION, Job
from reference_training.networks.backbones import download_command, pretrained_file
from reference_training.paper.recipes import IMAGES, OWN, differences, recipe_of, words
from reference_training.runtime import ranks
from reference_training.runtime.files import JsonLines
from reference_training.training.schedule import OPTIMIZERS
from reference_training.training.tracking import PERFORMANCE

IMAGENET_GIGABYTES = 148  # the training archive; its unpacked files take about as much
DEEPAUGMENT_IMAGES = (
    "DeepAugment's own images of the training set (EDSR's and CAE's; links in the README of "
    "github.com/hendrycks/imagenet-r, folder DeepAugment): name their folders with "
    "--deepaugment-roots; with --deepaugment-stand-in a random network makes others, and the table "
    "says so"
)
GPU_GIGABYTES = {
    "H200": 141,
    "H100": 80,
    "A100-80GB": 80,
    "A100-40GB": 40,
    "L40S": 48,
    "RTX4090": 24,
}
"""The memory of a GPU (NVIDIA's data sheets)."""


@dataclass(frozen=True)
class Cost:
    """Of one pair, unless said otherwise."""

    forward_flops: int
    uem_flops: int
    """The UEM's part of them."""
    saved_bytes: int
    """Activations kept for the backward pass."""
    weights: int
    """Trained parameters, of the network and of the UEM."""

    @property
    def flops(self) -> int:
        """Forward and backward, which takes twice as many: for the inputs and for the weights."""
        return 3 * self.forward_flops


def cost(job: Job, pairs: int = 2) -> Cost:
    """Counted on the meta device, where nothing is computed.

    Args:
        job: the run.
        pairs: in the batch that is counted.
    """
    run = job.run
    dtype = torch.bfloat16 if run.numerics.precision == "bfloat16" else torch.float32
    with torch.device("meta"):
        step = job.make_step(classes=1000).to(dtype).train()
        images = torch.empty(pairs, 3, run.crop, run.crop, dtype=dtype)
        views = job.method.second_views
        second = images.clone() if views == 1 else images[:, None].repeat(1, views, 1, 1, 1)
        batch = Batch(images, second, torch.zeros(pairs, dtype=torch.int64))
    saved: dict[int, int] = {}
    kept: list[Any] = []  # or a storage could be freed and its identity given to the next

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept.append(storage)
            saved[storage._cdata] = storage.nbytes()
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda same: same):
        step(batch)
    counts = counter.get_flop_counts()  # by module, as "DistillationStep.uem"
    uem = [name for name, module in step.named_modules() if module is step.uem]
    branch = [counts[f"{type(step).__name__}.{name}"] for name in uem]
    return Cost(
        forward_flops=counter.get_total_flops() // pairs,
        uem_flops=sum(sum(part.values()) for part in branch) // pairs,
        saved_bytes=sum(saved.values()) // pairs,
        weights=sum(weight.numel() for weight in step.parameters() if weight.requires_grad),
    )


def pairs_at_once(run: ImageNetRun, processes: int) -> int:
    """How many pairs go through the network together, on each of the processes."""
    return max(1, run.recipe.batch_size // processes // run.accumulate)


def memory_bytes(run: ImageNetRun, pair: Cost, processes: int = 1) -> int:
    """Of each GPU: weights, optimiser, images and activations, without any workspace."""
    # Weight, gradient and the optimiser's moments; DDP's buckets hold the gradients themselves.
    fixed = pair.weights * 4 * (2 + OPTIMIZERS[run.recipe.optimizer].moments)
    images = 2 * 3 * run.crop**2 * 4 * run.recipe.batch_size // processes
    return fixed + images + pairs_at_once(run, processes) * pair.saved_bytes


def measured_rate(run: ImageNetRun) -> float | None:
    """Pairs a second that this run itself reached, by its performance.jsonl; None before it ran."""
    rows = JsonLines(run.folder / PERFORMANCE).read()
    rates = [row["pairs_per_second"] for row in rows if "pairs_per_second" in row]
    return median(rates) if rates else None


def missing(job: Job) -> list[str]:
    """What this machine lacks for the run, each with the commands that get it."""
    run, root, lacks = job.run, job.run.data_root, []
    train = root / TRAIN
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
    if not (root / VALIDATION).is_dir():
        lacks.append(
            f"the validation images in {root / VALIDATION} (for the evaluation; made by the same "
            "command)"
        )
    if not (root / PUBLISHED).is_dir():
        lacks.append(
            f"ImageNet-C in {root / PUBLISHED} (for the evaluation):\n"
            f"    mkdir -p {root / PUBLISHED} && cd {root / PUBLISHED}\n"
            "    for part in noise blur weather digital extra; do\n"
            '      curl -LO "https://zenodo.org/records/2235448/files/$part.tar" '
            "&& tar -xf $part.tar && rm $part.tar\n"
            "    done"
        )
    try:
        _ = job.frost
    except (ValueError, FileNotFoundError):
        lacks.append(
            f"ImageNet-C's frost overlays (--frost {run.frost}):\n"
            "    pip install imagecorruptions-imaug"
        )
    if job.deepaugmented and not (run.deepaugment_roots or run.deepaugment_stand_in):
        lacks.append(DEEPAUGMENT_IMAGES)
    if run.weights == "pretrained" and not pretrained_file(run.arch).is_file():
        lacks.append(f"the pretrained weights:\n    {download_command(run.arch)}")
    if not torch.cuda.is_available():
        lacks.append("a GPU that torch sees (on a CPU this would take months)")
    return lacks


def _duration(run: ImageNetRun) -> str:
    rate = measured_rate(run)
    if rate is None:
        return (
            "not known before it is measured: train with --max-hours 0.1, then --plan reads the "
            f"pairs a second from {run.folder / PERFORMANCE}"
        )
    hours = run.recipe.iterations * run.recipe.batch_size / rate / 3600
    return f"{hours:.1f} h at the {rate:.0f} pairs a second that this run has reached"


def text(job: Job) -> str:
    """The plan of a run, for the terminal."""
    run, recipe = job.run, job.run.recipe
    processes = run.plan_gpus or max(run.processes, ranks.launched())
    share = pairs_at_once(run, processes)
    pair, available = cost(job), GPU_GIGABYTES[run.plan_gpu]
    pairs = recipe.iterations * recipe.batch_size
    how = recipe_of(job.row.training)
    whose = how.whose if OWN in job.recipes else job.recipes[0]
    memory = memory_bytes(run, pair, processes) / 1e9
    checkpoint = pair.weights * 4 * (1 + OPTIMIZERS[recipe.optimizer].moments) / 1e9
    folder = run.folder.absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    space = shutil.disk_usage(existing).free / 1e9
    lines = [
        f"{run.experiment}, {run.arch}, into {run.folder}",
        f"  method          {how.method}; differs: {differences(job.row)}",
        f"  recipe          {whose}: {words(recipe)}; from {run.weights} weights",
        f"  pairs           {recipe.iterations} iterations x {recipe.batch_size} = {pairs:,} "
        f"({pairs / IMAGES:.1f} epochs of ImageNet)",
        f"  work            about {pair.flops / 1e9:.1f} GFLOP a pair, forward and backward "
        f"({pair.forward_flops / 2e9:.1f} GMAC forward, of which the UEM's "
        f"{pair.uem_flops / 2e9:.2f} for the degraded image); {pairs * pair.flops:.2g} FLOP in all",
        f"  parameters      {pair.weights:,}",
        f"  time            {_duration(run)}",
        f"  GPU memory      {memory:.0f} GB on each of {processes} for {share} pairs at once, of "
        f"{available} on a {run.plan_gpu} (weights, optimiser, images, activations; no workspace)"
        + ("; raise --accumulate" if memory > available else ""),
        f"  disk            {run.kept + 1} x {checkpoint:.2f} GB of checkpoints (free: {space:.0f} "
        f"GB); the data {IMAGENET_GIGABYTES} GB",
    ]
    lacks = missing(job)
    lines.append("missing on this machine:" if lacks else "nothing is missing on this machine")
    lines += [f"  [ ] {item}" for item in lacks]
    return "\n".join(lines)
