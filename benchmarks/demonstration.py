"""ResNet-50 through the full-scale path on this machine: `python -m benchmarks.demonstration`.

Crops of real photographs, some files deliberately broken, a few dozen iterations at 64 pixels:
in one process, in two, and in two of which first one and then both are killed with SIGKILL. What
is compared goes to --out; the runs stay below --runs.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scripts.make_photograph_crops import write_folder
from ulfd.env import versions

ITERATIONS = 30
OPTIONS = (
    "--experiment table1/ulfd --arch resnet50 --weights random --crop 64 --resize 73 "
    f"--recipe.batch-size 16 --recipe.iterations {ITERATIONS} --numerics.precision float32 "
    "--checkpoint-every 10 --kept 2 --workers 1 --device cpu --frost procedural"
).split()


def start(root: Path, folder: Path, processes: int, *more: str) -> subprocess.Popen:
    """The same command, by torchrun where there are several processes."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "reference_training.run"]
    command += [*OPTIONS, "--data-root", str(root), "--out", str(folder), *more]
    # The rounding of a sum depends on the number of threads, and training amplifies it.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, start_new_session=True)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Waits until a file is there."""
    while not path.exists():
        if process.poll() is not None:
            raise SystemExit(f"the run ended before {path} came")
        time.sleep(0.2)


def ranks(process: subprocess.Popen) -> list[int]:
    """The process numbers of torchrun's children, from Linux's /proc."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in children.split()]


def rows(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """The lines of a log."""
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def digest(folder: Path) -> str:
    """SHA-256 of the last checkpoint: weights, running averages, optimiser."""
    path = folder / f"{ITERATIONS:08d}.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kill_twice(root: Path, folder: Path, more: list[str]) -> None:
    """One rank at a third of the way, all of them at two thirds, then to the end."""
    process = start(root, folder, 2, *more)
    wait_for(folder / f"{ITERATIONS // 3:08d}.json", process)
    os.kill(ranks(process)[-1], signal.SIGKILL)
    process.wait()
    process = start(root, folder, 2, *more)
    wait_for(folder / f"{2 * ITERATIONS // 3:08d}.json", process)
    everyone = ranks(process)
    for number in (process.pid, *everyone):
        os.kill(number, signal.SIGKILL)
    process.wait()
    if start(root, folder, 2, *more).wait():
        raise SystemExit("the run did not continue")


def main() -> None:
    """Makes the data, runs, compares, writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/demonstration"))
    parser.add_argument("--out", type=Path, default=Path("runs/demonstration/result.json"))
    given, more = parser.parse_known_args()
    root = given.runs / "crops"
    write_folder(root, each=48, broken=3)
    one, two, killed = (given.runs / name for name in ("one", "two", "killed"))
    if start(root, one, 1, "--accumulate", "2", *more).wait():
        raise SystemExit("the run in one process failed")
    if start(root, two, 2, *more).wait():
        raise SystemExit("the run in two processes failed")
    kill_twice(root, killed, more)
    curves = [[row["loss"] for row in rows(folder)] for folder in (one, two, killed)]
    result = {
        "what": "ResNet-50 at 64 pixels, 16 pairs an iteration in two shards, on CPU",
        "options": [*OPTIONS, *more],
        "versions": versions(),
        "metrics": rows(one),
        "loss_one_process": curves[0],
        "loss_two_processes": curves[1],
        "largest_relative_difference_of_losses": max(
            abs(a - b) / abs(a) for a, b in zip(curves[0], curves[1], strict=True)
        ),
        "two_processes_are_bit_identical_to_one": digest(one) == digest(two),
        "killed_twice_and_continued_is_bit_identical": digest(two) == digest(killed)
        and rows(two) == rows(killed),
        "unreadable": rows(one, "unreadable.jsonl"),
        "performance_one_process": rows(one, "performance.jsonl"),
        "performance_two_processes": rows(two, "performance.jsonl"),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(
        json.dumps(
            {key: value for key, value in result.items() if "largest" in key or "bit" in key}
        )
    )


if __name__ == "__main__":
    main()
