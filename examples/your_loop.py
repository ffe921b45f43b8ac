"""A whole training loop as people have it, with ulfd in it: `python -m examples.your_loop`.

Normalisation in the dataset, bfloat16 autocast, gradient accumulation and clipping, an average of
the weights (EMA), label smoothing, a frozen teacher, TensorBoard, a checkpoint to resume from, and
the plain network as safetensors and as an exported program; `torchrun --nproc-per-node 2 -m
examples.your_loop` trains on two processes. The lines of ulfd are marked. Runs from the checkout,
with `pip install '.[examples]'`, and tensorboard for `--log`.
"""

import os
from pathlib import Path
from typing import Any

import torch
import tyro
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision.models import resnet18
from torchvision.transforms.v2 import Normalize
from tqdm import tqdm

from examples.pairs import degraded, garments
from ulfd_torch import UEM, SelfDistillation, ULFDLoss  # ulfd

NORMALIZE = Normalize([0.5] * 3, [0.25] * 3)
Pair = tuple[Tensor, Tensor, Tensor]


class Pairs(Dataset[Pair]):
    """A normalised clean image, the same degraded and normalised, and the label.

    The image is degraded first: corruptions are defined on pixels in [0, 1].
    """

    def __init__(self, number: int) -> None:
        self.images = garments()  # yours: (3, 32, 32) uint8, after crop and flip
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Pair:
        image, label = self.images[index]
        clean = image[None] / 255
        return NORMALIZE(clean)[0], NORMALIZE(degraded(clean))[0], label  # ulfd


def main(
    epochs: int = 2,
    images: int = 1024,
    batch_size: int = 64,
    accumulate: int = 2,
    out: Path = Path("runs/your_loop"),
    log: bool = False,
    compile: bool = False,
) -> nn.Module:
    """Train, resuming where `out` has a checkpoint; the averaged network comes back.

    Args:
        accumulate: batches in a step of the optimiser.
        log: to TensorBoard, in `out`.
        compile: the step, by torch.compile.
    """
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if ranks > 1:
        distributed.init_process_group()
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
    first = ranks == 1 or distributed.get_rank() == 0

    torch.manual_seed(0)  # one beginning for all ranks
    model = resnet18(num_classes=10)  # yours; better: with weights, trained on clean images
    step = SelfDistillation(  # ulfd: holds the model and the UEM
        model,
        layer="layer3",
        uem=UEM(256),
        loss=ULFDLoss(weight=0.1, clamp=(-10, 10)),
        teacher="frozen",
        task_loss=nn.CrossEntropyLoss(label_smoothing=0.1),
    ).to(device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
    optimizer = torch.optim.AdamW(step.parameters(), lr=1e-3)  # ulfd: step's, not model's

    begun = 0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():  # the step's state has the network, the UEM and the frozen teacher
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        step.load_state_dict(state["step"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        begun = state["epoch"] + 1

    data = Pairs(images)
    sampler = DistributedSampler(data, drop_last=True) if ranks > 1 else None
    loader = DataLoader(
        data, batch_size, shuffle=sampler is None, sampler=sampler, drop_last=True, num_workers=1
    )
    trained: Any = DistributedDataParallel(step) if ranks > 1 else step
    trained = torch.compile(trained) if compile else trained
    writer = None
    if log and first:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(out)

    for epoch in range(begun, epochs):
        torch.manual_seed(epoch * ranks + (distributed.get_rank() if ranks > 1 else 0))
        if sampler is not None:
            sampler.set_epoch(epoch)
        step.train()
        bar = tqdm(loader, desc=f"epoch {epoch + 1}/{epochs}", disable=not first)
        for batch, (clean, worse, labels) in enumerate(bar):
            with torch.autocast(device.type, torch.bfloat16):
                result = trained(clean.to(device), worse.to(device), labels.to(device))  # ulfd
            (result.total / accumulate).backward()
            if (batch + 1) % accumulate == 0 or batch + 1 == len(loader):
                nn.utils.clip_grad_norm_(step.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                average.update_parameters(model)
            if writer is not None and batch % 10 == 0:
                for name in ("total", "clean", "degraded", "distillation"):
                    number = getattr(result, name).item()
                    writer.add_scalar(name, number, epoch * len(loader) + batch)
        if first:
            out.mkdir(parents=True, exist_ok=True)
            state = {"step": step.state_dict(), "average": average.state_dict(), "epoch": epoch}
            torch.save({**state, "optimizer": optimizer.state_dict()}, out / "checkpoint.tmp")
            (out / "checkpoint.tmp").replace(checkpoint)

    step.close()  # ulfd: takes the hook off; what is deployed is the plain network
    plain = average.module.eval()
    if first:
        save_file(plain.state_dict(), out / "model.safetensors")
        example = (torch.zeros(2, 3, 32, 32, device=device),)
        shapes = ({0: torch.export.Dim("batch")},)
        torch.export.save(
            torch.export.export(plain, example, dynamic_shapes=shapes), out / "model.pt2"
        )
    if writer is not None:
        writer.close()
    if ranks > 1:
        distributed.destroy_process_group()
    return plain


if __name__ == "__main__":
    tyro.cli(main)
