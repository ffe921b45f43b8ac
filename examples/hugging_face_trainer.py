"""An image classifier of transformers and its Trainer: `python -m examples.hugging_face_trainer`.

The Trainer takes the first thing that a module returns for its loss, and of SelfDistillation that
is the joint loss: nothing is to be overridden. Optimiser, checkpoints and torchrun's processes
have the UEM with them; `--out` gets the classifier alone, which `from_pretrained` reads.
Needs `pip install '.[train]' 'transformers[torch]>=5'`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import tyro
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainingArguments,
)

from examples.pairs import accuracy, garments, paired
from ulfd_torch import UEM, SelfDistillation, ULFDLoss


class Logits(nn.Module):
    """Images (B, 3, H, W) to logits (B, classes), of any image classifier of transformers."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(pixel_values=images).logits


def collate(items: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The step's arguments by name."""
    clean, degraded, labels = paired(items)
    return {"clean": clean, "degraded": degraded, "labels": labels}


def main(iterations: int = 200, batch_size: int = 32, out: Path | None = None) -> SelfDistillation:
    """Trains a small ResNet on 32×32 photographs of ten classes; the classifier goes to `out`."""
    # Yours: AutoModelForImageClassification.from_pretrained(..., use_safetensors=True)
    network = ResNetForImageClassification(
        ResNetConfig(
            embedding_size=64,
            hidden_sizes=[64, 128, 256],
            depths=[2, 2, 2],
            layer_type="basic",
            num_labels=10,
        )
    )
    step = SelfDistillation(
        Logits(network),
        layer="network.resnet.encoder.stages.2",
        uem=UEM(256),
        loss=ULFDLoss(weight=0.1, clamp=(-10, 10)),
    )
    with TemporaryDirectory() as checkpoints:
        arguments = TrainingArguments(
            output_dir=checkpoints,
            save_strategy="no",
            max_steps=iterations,
            per_device_train_batch_size=batch_size,
            learning_rate=1e-3,
            logging_steps=50,
            report_to="none",
            remove_unused_columns=False,  # ours are named in `collate`, not in the data
        )
        Trainer(step, arguments, data_collator=collate, train_dataset=garments()).train()
    print(accuracy(step.model.cpu()))
    if out:
        network.save_pretrained(out)
    return step


if __name__ == "__main__":
    tyro.cli(main)
