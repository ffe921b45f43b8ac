"""ulfd: uncertainty-learning feature distillation, defined once for every framework.

The mathematics is in `ulfd.losses`; this package speaks NumPy. PyTorch users import
`ulfd_torch`, JAX users `ulfd_jax`: same names, same arguments, same numbers.
"""

from ulfd.functional import named_loss, ulfd_loss, value_and_grad
from ulfd.gradients import Gradients
from ulfd.losses import FAMILY
from ulfd.uem import UEMSpec

__version__ = "0.2.0"
__all__ = [
    "FAMILY",
    "Gradients",
    "UEMSpec",
    "__version__",
    "named_loss",
    "ulfd_loss",
    "value_and_grad",
]
