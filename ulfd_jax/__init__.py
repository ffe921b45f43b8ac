"""The loss and the UEM for JAX: `from ulfd_jax import ulfd_loss`."""

from ulfd.extras import require
from ulfd.uem import UEMSpec

require("jax", extra="jax")

from ulfd_jax import uem  # noqa: E402  (after the check for JAX)
from ulfd_jax.functional import ulfd_loss, value_and_grad, vid_log_variance  # noqa: E402

__all__ = ["UEMSpec", "uem", "ulfd_loss", "value_and_grad", "vid_log_variance"]
