"""The paper end to end: `python -m reference_training.run` trains, evaluates and reports."""

import os

# With more than one thread, torch's OpenMP threads spin while they wait for each other. Beside
# another busy process a small network then trained sixteen times slower than with passive waiting
# (two cores, two threads). Only effective before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
