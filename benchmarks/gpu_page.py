"""One command for a GPU: `make gpu`, or `python -m benchmarks.gpu_page`.

Runs the phases of `benchmarks.gpu_phases` one after another, each for at most --seconds in a
process of its own, and writes page.md: what was planned beside what was measured. Every part's
result is kept at once in OUT/<phase>.json, and the same command goes on where it was ended. Without
a GPU it runs in its smallest form, on the CPU: that everything runs is then all that it shows.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_material import SIZES, Size
from benchmarks.gpu_phases import PHASES, ROOT, Parts
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import read_json, reason, write_json
from ulfd.env import versions

MARGIN = 120
"""Seconds that the last part of a phase may take beyond the phase's."""
UNFINISHED = 75
"""The exit code when parts are left, for want of time."""


def machine(size: Size) -> dict[str, Any]:
    """What results may not be mixed of."""
    name = torch.cuda.get_device_name() if size.device == "cuda" else "cpu"
    size_as_json = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(size).items()}
    return {"device": name, "size": size_as_json, "versions": versions()}


def kept(name: str, size: Size, out: Path) -> dict[str, Any]:
    """The results of a phase so far: {part: result}, a failed part's being {"error": words}.

    Raises:
        RunError: they are of another machine, other versions or another size.
    """
    path, here = out / f"{name}.json", machine(size)
    if not path.exists():
        return {}
    found = read_json(path)
    changed = [key for key in here if found["machine"].get(key) != here[key]]
    if changed:
        raise RunError(
            f"{path} is of another {' and '.join(changed)} than what runs here. Name another "
            "folder with --out, or delete that file."
        )
    return found["parts"]


def failed(part: Any) -> bool:
    """Whether a part's result says that it failed."""
    return isinstance(part, dict) and "error" in part


def forget_failures(name: str, size: Size, out: Path) -> None:
    """Has the parts of a phase that failed run again."""
    parts = kept(name, size, out)
    sound = {part: result for part, result in parts.items() if not failed(result)}
    if len(sound) < len(parts):
        write_json(out / f"{name}.json", {"machine": machine(size), "parts": sound})


def run_phase(name: str, size: Size, out: Path, seconds: float) -> bool:
    """Runs the parts of a phase that are missing, and keeps each; whether none is left.

    Args:
        name: a key of `PHASES`.
        size: of everything.
        out: the folder of the results.
        seconds: no part begins after so many.
    """
    out.mkdir(parents=True, exist_ok=True)
    done, end = kept(name, size, out), time.monotonic() + seconds
    parts: Parts
    try:
        parts = PHASES[name].parts(size, out)
    except ImportError as error:
        missing = {"error": reason(error)}
        parts = {"imports": lambda done: missing}
    for part, work in parts.items():
        if part in done:
            continue
        if time.monotonic() > end:
            return False
        started = time.monotonic()
        try:
            done[part] = work(done)
        except (Exception, SystemExit) as error:  # one failure must not hide what others would show
            done[part] = {"error": f"{type(error).__name__}: {reason(error)}"[:500]}
        write_json(out / f"{name}.json", {"machine": machine(size), "parts": done})
        print(f"{name}: {part}, {time.monotonic() - started:.1f} s", flush=True)
    return True


def run_apart(name: str, size: Size, out: Path, seconds: float) -> bool:
    """`run_phase` in processes of its own until no part is left, or one brings nothing new."""
    command = [sys.executable, "-m", "benchmarks.gpu_page", "--device", size.device]
    command += ["--phases", name, "--inside", "--out", str(out), "--seconds", str(seconds)]
    while True:
        before = len(kept(name, size, out))
        try:
            code: int | str = subprocess.run(
                command, cwd=ROOT, timeout=seconds + MARGIN, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = "out of time"
        if code in (0, 1):
            return True
        if len(kept(name, size, out)) == before:
            print(f"{name}: the part after number {before} ended its process ({code})")
            return False


def page(size: Size, out: Path) -> str:
    """Everything that was measured, as Markdown."""
    lines = ["# Measured on a GPU" if size.device == "cuda" else "# The smallest form, on a CPU"]
    if size.device == "cpu":
        lines.append("It shows that every phase runs; its times say nothing about a GPU.")
    for name, phase in PHASES.items():
        parts = kept(name, size, out)
        sound = {part: result for part, result in parts.items() if not failed(result)}
        lines.append(f"## {phase.title}")
        lines.append(phase.page(sound) if sound else "Nothing was measured.")
        lines += [f"**{part}**: {one['error']}" for part, one in parts.items() if failed(one)]
    return "\n\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, 1 if a part failed, or `UNFINISHED`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    here = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=SIZES, default=here)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    parser.add_argument("--seconds", type=float, default=480, help="of a phase at a time")
    parser.add_argument("--retry", action="store_true", help="run what failed again")
    parser.add_argument("--inside", action="store_true", help="in this process, for --seconds")
    given = parser.parse_args(arguments)
    size, out = SIZES[given.device], given.out.absolute()
    # Nothing on a CPU can spoil a process for what follows, as a fault of a GPU does.
    run = run_phase if given.inside or size.device == "cpu" else run_apart
    complete = True
    for name in given.phases:
        if given.retry:
            forget_failures(name, size, out)
        complete &= run(name, size, out, given.seconds)
    (out / "page.md").write_text(page(size, out), encoding="utf-8")
    print(f"the page: {out / 'page.md'}")
    wrong = [
        f"{name}: {part}: {found['error']}"
        for name in given.phases
        for part, found in kept(name, size, out).items()
        if failed(found)
    ]
    for each in wrong:
        print(f"failed: {each}", file=sys.stderr)
    return (1 if wrong else 0) if complete else UNFINISHED


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RunError as error:
        sys.exit(f"error: {error}")
