"""The training step as a LightningModule: `python -m examples.lightning_module`.

Network, UEM and loss are in the one module, so that Lightning's optimiser, checkpoints and
DistributedDataParallel (`--devices 2`) serve them all; what is saved here is the plain network.
Needs `pip install '.[train]' 'lightning>=2.6.6'`; of it 2.6.2 and 2.6.3 were malicious.
"""

from pathlib import Path

import lightning
import torch
import tyro
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models import resnet18

from examples.pairs import accuracy, garments, paired
from ulfd_torch import UEM, SelfDistillation, ULFDLoss


class RobustClassifier(lightning.LightningModule):
    """Trains `model` by Eq. 10; `channels` are those of its layer `layer`."""

    def __init__(self, model: nn.Module, layer: str, channels: int) -> None:
        super().__init__()
        loss = ULFDLoss(weight=0.1, clamp=(-10, 10))
        self.step = SelfDistillation(model, layer=layer, uem=UEM(channels), loss=loss)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> Tensor:
        # Computed where a logger will ask. What is logged stays on the device until it does, so
        # no prog_bar=True: the bar would ask at every step.
        self.step.statistics = (self.global_step + 1) % self.trainer.log_every_n_steps == 0
        result = self.step(*batch)
        if result.statistics:
            self.log_dict({"loss": result.total.detach(), **result.statistics._asdict()})
        return result.total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main(
    iterations: int = 200,
    batch_size: int = 32,
    devices: int = 1,
    strategy: str = "auto",
    workers: int = 2,
    out: Path | None = None,
) -> tuple[RobustClassifier, lightning.Trainer]:
    """Trains a ResNet-18 on 32×32 photographs of ten classes; its weights go to `out`."""
    lightning.seed_everything(0, workers=True)
    loader = DataLoader(
        garments(),
        batch_size,
        shuffle=True,  # under DDP Lightning gives each process its part
        drop_last=True,
        collate_fn=paired,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    module = RobustClassifier(resnet18(num_classes=10), layer="layer4", channels=512)
    # With `logger=` and checkpoints, as you would, Lightning makes folders where it is started.
    trainer = lightning.Trainer(
        devices=devices,
        strategy=strategy,
        max_steps=iterations,
        logger=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, loader)
    if trainer.is_global_zero:
        print({name: round(value.item(), 3) for name, value in trainer.logged_metrics.items()})
        print(accuracy(module.step.model))
        if out:
            torch.save(module.step.model.state_dict(), out)
    return module, trainer


if __name__ == "__main__":
    tyro.cli(main)
