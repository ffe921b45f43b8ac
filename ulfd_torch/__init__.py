"""The loss, the UEM and the training step for PyTorch: `from ulfd_torch import ULFDLoss`."""

from ulfd.extras import require

require("torch", extra="torch")

from ulfd_torch.features import FeatureTap  # noqa: E402  (after the check for torch)
from ulfd_torch.functional import ulfd_loss, value_and_grad, vid_log_variance  # noqa: E402
from ulfd_torch.layers import SuggestedLayer, suggest_layers  # noqa: E402
from ulfd_torch.modules import UEM, ULFDLoss  # noqa: E402
from ulfd_torch.self_distillation import SelfDistillation, SelfDistillationLoss  # noqa: E402
from ulfd_torch.statistics import LossStatistics, loss_statistics  # noqa: E402

__all__ = [
    "UEM",
    "FeatureTap",
    "LossStatistics",
    "SelfDistillation",
    "SelfDistillationLoss",
    "SuggestedLayer",
    "ULFDLoss",
    "loss_statistics",
    "suggest_layers",
    "ulfd_loss",
    "value_and_grad",
    "vid_log_variance",
]
