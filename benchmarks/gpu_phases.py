"""What `benchmarks.gpu_page` measures: one registry of phases, each of parts that are kept singly.

A part is a function of the earlier parts' results and returns JSON. What a phase needs is imported
by its parts, so that a machine without one package misses one phase and not all.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_material import Size, photographs, pictures
from benchmarks.tables import markdown
from ulfd import env

ROOT = Path(__file__).parents[1]
Done = Mapping[str, Any]
Parts = dict[str, Callable[[Done], Any]]
TRAINED = {"with UEM": "table1/ulfd", "without": "table1/feature_distillation"}


@dataclass(frozen=True)
class Phase:
    """One phase: its parts for a size and a folder to work in, and their results as Markdown."""

    title: str
    parts: Callable[[Size, Path], Parts]
    page: Callable[[Done], str]


def environment(size: Size, folder: Path) -> Parts:
    """Versions, devices, kernels, driver."""

    def driver(done: Done) -> str:
        command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv"]
        if shutil.which(command[0]) is None:
            return "no nvidia-smi"
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    return {
        "versions": lambda done: env.versions(),
        "devices": lambda done: env.devices(),
        "kernels": lambda done: env.kernels(),
        "driver": driver,
    }


def _listed(done: Done) -> str:
    return markdown(("", "found"), ((name, _plain(value)) for name, value in done.items()))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value).replace("\n", ", ")


def tests(size: Size, folder: Path) -> Parts:
    """The tests that need a GPU; without one they are skipped, and that they can be is the test."""

    def run(path: str, done: Done) -> dict[str, Any]:
        report = folder / f"{Path(path).stem}.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", path, f"--junitxml={report}"]
        # Other phases have JAX compute on the CPU; and all memory at once would leave torch none.
        others = {key: value for key, value in os.environ.items() if key != "JAX_PLATFORMS"}
        others["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        ended = subprocess.run(command, cwd=ROOT, env=others, capture_output=True, check=False)
        (suite,) = ElementTree.parse(report).getroot()
        found = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors")}
        found["skipped"] = int(suite.attrib["skipped"])
        wrong = [case.attrib["name"] for case in suite if case.find("failure") is not None]
        if ended.returncode not in (0, 5):  # 5: all were skipped as whole files
            raise RuntimeError(f"pytest ended with {ended.returncode}; {found}; failed: {wrong}")
        return found

    paths = {"torch": "tests/gpu/test_triton.py", "JAX": "tests/gpu/test_jax.py"}
    if size.device == "cuda":
        paths["corruptions"] = "tests/reference_training/corruptions"
    return {name: partial(run, path) for name, path in paths.items()}


def _counted(done: Done) -> str:
    header = ("of", "tests", "failures", "errors", "skipped")
    return markdown(header, ((name, *found.values()) for name, found in done.items()))


def kernels(size: Size, folder: Path) -> Parts:
    """The fused kernels against what a user would pick instead; see `benchmarks.gpu`."""
    if size.device == "cpu":
        return {"small": _kernels_on_cpu}
    from benchmarks import gpu
    from benchmarks.problems import GPU_LOSSES, ITEMSIZES

    parts: Parts = {"machine": lambda done: gpu.machine()}
    for dtype in ITEMSIZES:
        parts[f"copies, {dtype}"] = lambda done, dtype=dtype: gpu.ceilings(dtype)
    for problem in GPU_LOSSES:
        parts[str(problem)] = lambda done, problem=problem: gpu.compare(
            problem, done[f"copies, {problem.dtype}"], done["machine"]
        )
    return parts


def _kernels_on_cpu(done: Done) -> list[dict[str, Any]]:
    from benchmarks.losses import COMPILED, ON_CPU, Oracle, serving, tensors
    from benchmarks.problems import AUTOGRAD, SMALL, LossProblem

    problem = LossProblem(SMALL, task=AUTOGRAD)
    given, rows = tensors(problem), []
    oracle = Oracle(problem, given)
    for candidate in serving(ON_CPU, problem):
        if candidate.name == COMPILED:  # takes longer than all the rest
            continue
        run = candidate.make(problem, given)
        oracle.check(candidate, run())
        rows.append({"implementation": candidate.name, "seconds": _seconds(run, "cpu")})
    return rows


def _kernel_table(done: Done) -> str:
    rows = [(name, row) for name, part in done.items() if isinstance(part, list) for row in part]
    return markdown(
        ("problem", "implementation", "µs", "of a copy", "of the datasheet"),
        (
            (
                name,
                row["implementation"],
                f"{1e6 * row['seconds']:.1f}",
                *(
                    f"{row[share]:.0%}" if row.get(share) else ""
                    for share in ("share of the copy", "share of the datasheet")
                ),
            )
            for name, row in rows
        ),
    )


def _seconds(run: Callable[[], Any], device: str, rounds: int = 5) -> float:
    """Of one call, the device's work included: the median."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    times = []
    run()
    for _ in range(rounds):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def corruptions(size: Size, folder: Path) -> Parts:
    """Each type at all severities, and a batch of all: against the CPU, and how fast."""
    from benchmarks.operations import Cost
    from reference_training.corruptions import CORRUPTIONS, SEEN, SEVERITIES, corrupt

    def run(kinds: list[tuple[str, int]], count: int, done: Done) -> dict[str, Any]:
        images = pictures(count, size.crop, size.crop)
        names, severities = (list(each) for each in zip(*kinds, strict=True))

        def make(given: Tensor, some: slice = slice(None)) -> Tensor:
            seeds = torch.arange(count)[some]
            options: dict[str, Any] = {"seeds": seeds, "frost": "procedural"}
            return corrupt(given[some], names[some], severities[some], **options)

        alone = torch.cat([make(images, slice(at, at + 1)) for at in range(count)])
        there = images.to(size.device)
        away = (make(there).cpu().int() - alone.int()).abs()
        with Cost() as counted, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if size.device == "cuda":
                torch.cuda.set_sync_debug_mode("warn")
            make(there)
        if size.device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        waits = sum("synchroniz" in str(each.message) for each in caught)
        return {
            "images/s": round(count / _seconds(partial(make, there), size.device), 1),
            "largest difference": int(away.max()),
            "share of differing levels": float((away > 0).float().mean()),
            "operations": counted.operations,
            "waits for the device": waits,
        }

    count = size.batch
    parts: Parts = {
        name: partial(run, [(name, level) for level in SEVERITIES] * (count // 5), count // 5 * 5)
        for name in CORRUPTIONS
    }
    mixed = list(product(SEEN, SEVERITIES)) * (-(-count // 75))
    mixed = mixed[: count // 15 * 15] if count < 75 else mixed[:count]
    parts["a batch of all seen"] = partial(run, mixed, len(mixed))
    return parts


def columns(done: Done) -> str:
    """A row for each part, a column for each of its numbers."""
    header = ("", *next(iter(done.values())))
    return markdown(header, ((name, *map(_number, row.values())) for name, row in done.items()))


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _options(size: Size, root: Path, row: str, pairs: int) -> list[str]:
    given = f"--experiment {row} --arch {size.arch} --weights random --crop {size.crop} --resize "
    given += f"{size.resize} --recipe.batch-size {pairs} --recipe.iterations {size.iterations} "
    given += f"--numerics.precision {size.precision} --workers {size.workers} --kept 2 --device "
    return [*f"{given}{size.device} --frost procedural".split(), "--data-root", str(root)]


def training(size: Size, folder: Path) -> Parts:
    """The training itself, by its own command: pairs a second by part, memory, and the plan's."""
    from reference_training.experiments import plan
    from reference_training.experiments.job import resolve
    from reference_training.run import execute, parse
    from reference_training.runtime.files import JsonLines
    from reference_training.training.tracking import PERFORMANCE

    def run(row: str, pairs: int, done: Done) -> dict[str, Any]:
        out = folder / f"training-{row.replace('/', '-')}-{pairs}"
        shutil.rmtree(out, ignore_errors=True)
        options = [*_options(size, photographs(size, folder), row, pairs), "--out", str(out)]
        job = resolve(parse(options))  # type: ignore[arg-type]
        pair = plan.cost(job)
        if size.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        execute([*options, "--checkpoint-every", str(size.iterations)])
        rows = [row for row in JsonLines(out / PERFORMANCE).read() if "pairs_per_second" in row]
        shutil.rmtree(out)

        def spent(part: str) -> float:
            return sum(row[f"seconds_{part}"] for row in rows)

        rate = statistics.median(row["pairs_per_second"] for row in rows)
        step = sum(map(spent, STEP))
        return {
            "pairs/s": rate,
            "pairs/s of the step alone": rate * spent("all") / step,
            "TFLOP/s of the step": rate * spent("all") / step * pair.flops / 1e12,
            "GB": rows[-1]["peak_memory_bytes"] / 1e9,
            "GB planned": plan.memory_bytes(job.run, pair) / 1e9,
            "GFLOP a pair planned": pair.flops / 1e9,
            **{
                f"{part}, share": spent(part) / spent("all")
                for part in ("data", "degradation", *STEP)
            },
        }

    return {
        f"{name}, {pairs} pairs": partial(run, row, pairs)
        for pairs in size.pairs
        for name, row in TRAINED.items()
    }


STEP = ("forward", "backward", "optimizer")


def resuming(size: Size, folder: Path) -> Parts:
    """A run that is killed and started again ends with the bits of one that is not."""
    from benchmarks.demonstration import start, wait_for
    from reference_training.run import execute

    def run(done: Done) -> dict[str, Any]:
        whole, killed = folder / "whole", folder / "killed"
        for out in (whole, killed):
            shutil.rmtree(out, ignore_errors=True)
        root = photographs(size, folder)
        every = size.iterations // 4
        more = ["--checkpoint-every", str(every)]
        options = [*_options(size, root, TRAINED["with UEM"], size.pairs[0]), *more]
        process = start(root, killed, 1, *options)
        try:
            wait_for(killed / f"{every:08d}.json", process)
        finally:
            process.kill()
            process.wait()
        reached = max(int(path.stem) for path in killed.glob("0*.json"))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in the other process: their number decides rounding
        try:
            for out in (whole, killed):
                execute([*options, "--out", str(out)])
        finally:
            torch.set_num_threads(threads)
        names = (f"{size.iterations:08d}.safetensors", "metrics.jsonl")
        same = [(whole / name).read_bytes() == (killed / name).read_bytes() for name in names]
        for out in (whole, killed):
            shutil.rmtree(out)
        if not all(same):
            raise RuntimeError(f"not the same bits: {dict(zip(names, same, strict=True))}")
        return {"killed at": reached, "iterations": size.iterations, "bit-identical": all(same)}

    return {size.arch: run}


def evaluation(size: Size, folder: Path) -> Parts:
    """Clean images and one corruption at all severities through the network, as tables need it."""
    from reference_training.data.images import Dataset
    from reference_training.data.samples import InMemory
    from reference_training.data.views import MEAN, STD
    from reference_training.evaluation import OnTheFly, evaluate_corruptions
    from reference_training.networks.backbones import ARCHITECTURES
    from reference_training.networks.preprocessing import Preprocessing

    def run(jpeg: bool, done: Done) -> dict[str, float]:
        images = pictures(size.evaluated, size.crop, size.crop)
        labels = torch.arange(len(images)) % 8
        data = Dataset("made", images, labels, images, labels, 8, True, "", "")
        model = ARCHITECTURES[size.arch].make(8).to(size.device)
        out = folder / "evaluated"
        shutil.rmtree(out, ignore_errors=True)
        start = time.perf_counter()
        evaluate_corruptions(
            model,
            OnTheFly(InMemory(data), jpeg85=jpeg),
            out=out,
            preprocessing=Preprocessing(MEAN, STD),
            corruptions=("fog",),
        )
        seconds = time.perf_counter() - start
        shutil.rmtree(out)
        return {"images/s": 6 * len(images) / seconds}

    return {"fog": partial(run, False), "fog, stored as JPEG": partial(run, True)}


PHASES = {
    "environment": Phase("Environment", environment, _listed),
    "tests": Phase("Tests on the GPU", tests, _counted),
    "kernels": Phase("Kernels", kernels, _kernel_table),
    "corruptions": Phase("Corruptions", corruptions, columns),
    "training": Phase("Training: plan and measurement", training, columns),
    "resuming": Phase("Killed and continued", resuming, columns),
    "evaluation": Phase("Evaluation", evaluation, columns),
}
"""In the order in which they run."""
