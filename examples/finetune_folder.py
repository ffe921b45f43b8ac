"""Makes a torchvision ResNet robust on your own photographs: FOLDER/class/*.jpg.

`python -m examples.finetune_folder --folder FOLDER --weights DEFAULT` takes the published weights,
which torchvision downloads; `--weights` may be left out. Needs `pip install 'ulfd[train]'`.
"""

from pathlib import Path

import torch
import tyro
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import get_model
from torchvision.transforms import v2
from tqdm import tqdm

from examples.pairs import degraded
from ulfd_torch import UEM, SelfDistillation, ULFDLoss


def main(
    folder: Path,
    arch: str = "resnet18",
    weights: str | None = None,
    epochs: int = 5,
    batch_size: int = 32,
    size: int = 224,
    workers: int = 2,
    out: Path = Path("robust.pt"),
) -> SelfDistillation:
    """Trains, and saves the plain network's weights."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # The clean image is cropped and flipped first and degraded then, so that a pair is a pair.
    view = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    images = ImageFolder(folder, view)
    loader = DataLoader(images, batch_size, shuffle=True, drop_last=True, num_workers=workers)
    as_published = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )

    model = get_model(arch, weights=weights)
    channels = model.fc.in_features  # those of layer4
    model.fc = torch.nn.Linear(channels, len(images.classes))
    loss = ULFDLoss(weight=0.1, clamp=(-10, 10))
    step = SelfDistillation(model, layer="layer4", uem=UEM(channels), loss=loss).to(device)
    optimizer = torch.optim.AdamW(step.parameters(), lr=1e-4)

    for _ in range(epochs):
        bar = tqdm(loader)
        for iteration, (clean, labels) in enumerate(bar):
            clean, labels = clean.to(device), labels.to(device)
            step.statistics = iteration % 50 == 0
            result = step(as_published(clean), as_published(degraded(clean)), labels)
            optimizer.zero_grad()
            result.total.backward()
            optimizer.step()
            if result.statistics:
                bar.set_postfix(result.statistics.as_dict())
    torch.save(model.state_dict(), out)
    return step


if __name__ == "__main__":
    tyro.cli(main)
