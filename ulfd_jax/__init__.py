"""The loss and the UEM for JAX: `from ulfd_jax import ulfd_loss`."""

from ulfd.extras import require
from ulfd.uem import UEMSpec

require("jax", extra="jax")

from ulfd_jax import uem  # noqa: E402  (after the check for JAX)
from ulfd_jax.functional import (  # noqa: E402
    named_loss,
    ulfd_loss,
    value_and_grad,
    vid_log_variance,
)
from ulfd_jax.statistics import LossStatistics, loss_statistics  # noqa: E402

__all__ = [
    "LossStatistics",
    "UEMSpec",
    "loss_statistics",
    "named_loss",
    "uem",
    "ulfd_loss",
    "value_and_grad",
    "vid_log_variance",
]
