"""A larger teacher that stays as it is: `python -m examples.wider_teacher`.

Its feature has 2048 channels, the student's 512: a 1×1 convolution leads from one to the other.
"""

import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18, resnet50

from examples.pairs import accuracy, pairs
from ulfd_torch import UEM, FeatureTap, ULFDLoss

WIDTHS = (512, 2048)
"""Channels of the student's and of the teacher's layer4."""


class TaughtByAnother(nn.Module):
    """CE(y, f(x)) + CE(y, f(x̃)) + λ·L_ULFD(z, P ẑ, σ), z the teacher's feature of x.

    P is a 1×1 convolution between the two widths. The teacher is neither trained nor saved.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, layer: str, widths: tuple[int, int]):
        super().__init__()
        self.student = student
        # In a tuple, so that it is no child of this module: neither saved nor put in train mode.
        self._teacher = (teacher.eval().requires_grad_(False),)
        self.taps = FeatureTap(student, layer), FeatureTap(teacher, layer)
        self.project = nn.Conv2d(*widths, 1)
        self.uem = UEM(widths[1])
        self.criterion = ULFDLoss(weight=0.1, clamp=(-10, 10))

    def forward(self, clean: Tensor, degraded: Tensor, labels: Tensor) -> Tensor:
        """The joint loss of a batch of pairs."""
        of_student, of_teacher = self.taps
        loss = cross_entropy(self.student(clean), labels)
        loss = loss + cross_entropy(self.student(degraded), labels)
        feature = self.project(of_student.take())  # of the last pass, the degraded image's
        with torch.no_grad():
            self._teacher[0](clean)
        return loss + self.criterion(feature, of_teacher.take(), self.uem(feature))


def main(iterations: int = 200, batch_size: int = 32):
    """Trains a ResNet-50 on clean photographs, and by it a ResNet-18 on pairs."""
    teacher = resnet50(num_classes=10)  # yours comes with its weights
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=1e-3)
    for clean, _, labels in pairs(iterations, batch_size):
        optimizer.zero_grad()
        cross_entropy(teacher(clean), labels).backward()
        optimizer.step()

    step = TaughtByAnother(resnet18(num_classes=10), teacher, "layer4", WIDTHS)
    optimizer = torch.optim.AdamW(step.parameters(), lr=1e-3)
    for batch in pairs(iterations, batch_size):
        optimizer.zero_grad()
        step(*batch).backward()
        optimizer.step()
    print("teacher:", accuracy(teacher))
    print("student:", accuracy(step.student))
    return step


if __name__ == "__main__":
    tyro.cli(main)
