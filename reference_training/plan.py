"""What a run costs and what it still needs, before anything runs: `--plan`."""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reference_training import parallel
from reference_training.architectures import ARCHITECTURES, download_command, pretrained_file
from reference_training.config import PaperRun
from reference_training.experiments import ROWS
from reference_training.methods.base import Batch
from reference_training.roofline import GPUS, LOSS, Device, Operation, Recorder
from reference_training.trainings import training
from ulfd.options import LossOptions
from ulfd_torch import ULFDLoss
from ulfd_torch.functional import IMPLEMENTATIONS

IMAGENET_IMAGES = 1_281_167
IMAGENET_GIGABYTES = 148  # the training archive; its unpacked files take about as much
SLOWDOWN = (1.5, 4.0)
"""How many times the least time a step takes: an assumption. NVIDIA's own ResNet-50 in mixed
precision (DeepLearningExamples) takes 1.5 (V100) and 1.7 times (A100), by its images/s."""
DECODING_SECONDS = 0.006
"""For one ImageNet photograph on one CPU core, its bytes read from a local disk: an assumption."""


@dataclass(frozen=True)
class Cost:
    """Of one pair, unless said otherwise."""

    flops: int
    """Forward and backward."""
    forward_flops: int
    uem_flops: int
    """The UEM's part of the forward ones."""
    saved_bytes: int
    """Activations kept for the backward pass."""
    weights: int
    """Trained parameters, of the network and of the UEM."""
    loss_bytes: int
    """What the fused loss reads and writes, forward and backward."""
    parts: dict[str, list[Operation]]
    """What a step of all the pairs carries out: by the network, the UEM and the loss."""

    def seconds(self, device: Device) -> dict[str, float]:
        """The least time of a step's parts."""
        return {
            part: sum(operation.seconds(device) for operation in operations)
            for part, operations in self.parts.items()
        }


def make_step(run: PaperRun, classes: int) -> Any:
    """The step of a run with random weights."""
    model = ARCHITECTURES[run.arch].make(classes)
    return training(ROWS[run.experiment].training).method.make_step(model, run.recipe, run.uem)


class _Fused(nn.Module):
    """The loss as its kernels see it: two operations. On the meta device it would be composite."""

    def forward(self, *features: Tensor | None) -> Tensor:
        return IMPLEMENTATIONS["triton"](*features, LossOptions())


def _flops(operations: list[Operation]) -> int:
    return sum(operation.flops for operation in operations)


def _update(weights: int, accumulate: int) -> list[Operation]:
    """Fused Adam, of which a step is one in `accumulate`: 4 float32 words read, 3 written."""
    return [Operation("update", 0, 7 * 4 * weights // accumulate)] if weights else []


def _weights(module: nn.Module | None) -> int:
    """The trained ones."""
    weights = () if module is None else module.parameters()
    return sum(weight.numel() for weight in weights if weight.requires_grad)


def cost(run: PaperRun, pairs: int = 2) -> Cost:
    """Counted on the meta device, where nothing is computed.

    Args:
        pairs: in a batch; weights are moved once for all of them.
    """
    dtype = torch.bfloat16 if run.numerics.precision == "bfloat16" else torch.float32
    with torch.device("meta"):
        step = make_step(run, classes=1000).to(dtype).train()
        images = torch.empty(pairs, 3, run.crop, run.crop, dtype=dtype)
        views = training(ROWS[run.experiment].training).method.second_views
        second = images.clone() if views == 1 else images[:, None].repeat(1, views, 1, 1, 1)
        batch = Batch(images, second, torch.zeros(pairs, dtype=torch.int64))
    if isinstance(getattr(step, "loss", None), ULFDLoss):
        step.loss = _Fused()
    features: list[Tensor] = []
    if step.uem is not None:
        step.uem.register_forward_pre_hook(lambda uem, given: features.append(*given))
    saved: dict[int, int] = {}
    kept: list[Any] = []  # or a storage could be freed and its identity given to the next

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept.append(storage)
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with Recorder() as forward, torch.autograd.graph.saved_tensors_hooks(keep, lambda same: same):
        loss = step(batch).loss
    with Recorder() as backward:
        loss.backward()
    # Once more the UEM alone, to tell its operations from the network's.
    branch_forward, branch_backward = Recorder(), Recorder()
    if step.uem is not None:
        step.uem.zero_grad()
        with branch_forward:
            sigma = step.uem(features[0].detach().requires_grad_())
        with branch_backward:
            sigma.backward(torch.empty_like(sigma))
    everything = forward.operations + backward.operations
    branch = branch_forward.operations + branch_backward.operations
    losses = [operation for operation in everything if operation.kind == LOSS]
    network = Counter(everything) - Counter(branch) - Counter(losses)
    weights, branch_weights = _weights(step), _weights(step.uem)
    return Cost(
        flops=_flops(everything) // pairs,
        forward_flops=_flops(forward.operations) // pairs,
        uem_flops=_flops(branch_forward.operations) // pairs,
        saved_bytes=sum(saved.values()) // pairs,
        weights=weights,
        loss_bytes=sum(operation.moved for operation in losses) // pairs,
        parts={
            "network": [*network.elements(), *_update(weights - branch_weights, run.accumulate)],
            "UEM": branch + _update(branch_weights, run.accumulate),
            "loss": losses,
        },
    )


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
    recipe, gpu = run.recipe, GPUS[run.plan_gpu]
    ranks = run.plan_gpus or parallel.launched()
    share = max(1, recipe.batch_size // ranks // run.accumulate)
    one, device = cost(run, share), gpu.device(run.numerics.precision)
    pairs = recipe.iterations * recipe.batch_size
    parts = one.seconds(device)
    step = sum(parts.values())
    fast, slow = (recipe.iterations * run.accumulate * step * k / 3600 for k in SLOWDOWN)
    # Weight, gradient and Adam's two moments; DDP's buckets hold the gradients themselves.
    fixed = one.weights * 4 * 4
    images = 2 * 3 * run.crop**2 * 4 * recipe.batch_size // ranks
    memory = (fixed + images + share * one.saved_bytes) / 1e9
    saved = one.weights * 4 * 3 / 1e9
    space = shutil.disk_usage(_existing(run.folder.absolute())).free / 1e9
    rate = pairs / (fast * 3600) if pairs else 0.0
    lines = [
        f"{run.experiment}, {run.arch}, into {run.folder}",
        f"  pairs           {recipe.iterations} iterations x {recipe.batch_size} = {pairs:,} "
        f"({pairs / IMAGENET_IMAGES:.1f} epochs of ImageNet)",
        f"  work            {one.flops / 1e9:.1f} GFLOP a pair, forward and backward "
        f"({one.forward_flops / 2e9:.1f} GMAC forward, of which the UEM's "
        f"{one.uem_flops / 2e9:.2f} for the degraded image); {pairs * one.flops:.2g} FLOP in all",
        f"  loss            {one.loss_bytes / 1e6:.2f} MB to move for a pair's value and gradients",
        f"  a step's time   the UEM {parts['UEM'] / step:.0%}, the loss {parts['loss'] / step:.2%} "
        f"of it; {share} pairs on a {run.plan_gpu}, each operation taking the longer of its FLOP "
        f"at {device.throughput / 1e12:g} TFLOP/s ({run.numerics.precision}) and its bytes at "
        f"{device.bandwidth / 1e12:g} TB/s, each operand moved once (data sheet), and "
        f"{device.call * 1e6:g} µs a call (an assumption)",
        f"  parameters      {one.weights:,}",
        f"  {ranks} x {run.plan_gpu:<12}  {fast:.1f} to {slow:.1f} h: {SLOWDOWN[0]:g} to "
        f"{SLOWDOWN[1]:g} times the least, {step * 1e3:.1f} ms a step (the factors are an "
        "assumption; the corruptions and the exchange between GPUs come on top)",
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
