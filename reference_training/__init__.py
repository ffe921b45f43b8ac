"""The paper end to end: `python -m reference_training.run` trains, evaluates and reports."""

import os

from ulfd.extras import require

# torch's OpenMP threads spin while they wait for each other. On a machine that does anything else
# at the same time, small networks then train up to twenty times slower (measured); waiting
# passively costs little on a quiet one. Only effective before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

require(
    "torch",
    "torchvision",
    "PIL",
    "tyro",
    "tqdm",
    "safetensors",
    "matplotlib",
    "sklearn",
    extra="train",
)
