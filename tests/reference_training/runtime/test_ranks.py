"""A rank ends with the launcher that was killed, also where it is the only one."""

import os
import subprocess
import sys

RANK = """
import time
from reference_training.runtime.ranks import join
with join("cpu"):
    print("joined", flush=True)
    time.sleep(100)
"""
LAUNCHER = """
import subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]])
"""


def test_a_single_rank_ends_with_torchrun():
    """Its output closes when the last process that holds it is gone."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, RANK],
        env=os.environ | {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert launcher.stdout.readline() == "joined\n"
    launcher.kill()
    said, _ = launcher.communicate(timeout=30)
    assert said == ""
