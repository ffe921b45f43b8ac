"""Where a training step's time goes: `python -m benchmarks.step_profile --out FILE`.

The parts of ResNet-50's step take turns in one process (A B A B ...), and the medians of the rounds
are set beside what `--plan` counts: the UEM's share of the work, and the bytes of the loss at the
speed of a plain copy.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reference_training import plan
from reference_training.config import PaperRun
from reference_training.corruptions import SEEN, corrupt
from reference_training.methods import METHODS
from reference_training.methods.base import Batch
from reference_training.run import parse
from ulfd.env import versions
from ulfd_torch import FeatureTap, ULFDLoss

ROUNDS = 5


def parts(run: PaperRun, pairs: int) -> tuple[dict[str, Callable[[], object]], Tensor]:
    """What is timed, by name, and the feature that is distilled."""
    torch.manual_seed(0)
    step = plan.make_step(run, classes=1000).to(memory_format=torch.channels_last)
    plain = METHODS["cross_entropy"].make_step(step.model, run.recipe, run.uem)
    images = torch.randn(pairs, 3, run.crop, run.crop).contiguous(memory_format=torch.channels_last)
    batch = Batch(images, images + 0.1 * torch.randn_like(images), torch.arange(pairs))
    with torch.no_grad(), FeatureTap(step.model, step.model.feature_layer) as tap:
        step.model(images)
        feature = tap.take().clone()
    student, teacher = (feature.clone().requires_grad_() for _ in range(2))
    sigma = (-feature).requires_grad_()
    loss = ULFDLoss(weight=run.recipe.distillation_weight, clamp=run.recipe.clamp)
    optimizer = torch.optim.Adam(step.parameters(), fused=True)
    step(batch).loss.backward()
    levels = torch.randint(0, 256, images.shape, dtype=torch.uint8)
    names = [SEEN[at % len(SEEN)] for at in range(pairs)]
    severities = [1 + at % 5 for at in range(pairs)]
    target = torch.empty_like(feature)
    return {
        "whole step, forward and backward": lambda: step(batch).loss.backward(),
        "network alone, both passes": lambda: plain(batch).loss.backward(),
        "UEM alone": lambda: step.uem(student).sum().backward(),
        "loss alone": lambda: loss(student, teacher, sigma).backward(),
        "copy of a feature": lambda: target.copy_(feature),
        "optimiser": optimizer.step,
        "degradation": lambda: corrupt(
            levels, names, severities, seeds=torch.arange(pairs), parameters="cifar32"
        ),
    }, feature


def measure(candidates: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds by name: medians of interleaved rounds, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(ROUNDS + 1):
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def profile(run: PaperRun, pairs: int) -> dict[str, Any]:
    """One batch size: seconds, and the shares beside the plan's."""
    candidates, feature = parts(run, pairs)
    seconds = measure(candidates)
    predicted = plan.cost(run)
    whole = seconds["whole step, forward and backward"]
    inner, outer = seconds["UEM alone"], seconds["network alone, both passes"]
    rate = 2 * feature.numel() * feature.element_size() / seconds["copy of a feature"]
    return {
        "pairs": pairs,
        "seconds": seconds,
        "uem_share": {
            "predicted": predicted.uem_share,
            "measured": inner / (inner + outer),
        },
        "loss_share": {
            "predicted": predicted.loss_bytes * pairs / rate / whole,
            "measured": seconds["loss alone"] / whole,
        },
        "gflop_per_second": predicted.flops * pairs / whole / 1e9,
    }


def main() -> None:
    """Measures, compares with the plan, writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/step_profile.json"))
    parser.add_argument("--pairs", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--crop", type=int, default=64)
    given = parser.parse_args()
    options = f"--crop {given.crop} --resize {given.crop * 8 // 7} --numerics.precision float32"
    run = parse(["--experiment", "table1/ulfd", *options.split()])
    assert isinstance(run, PaperRun)
    result = {
        "what": f"ResNet-50, {given.crop} pixels, float32, on CPU",
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "profiles": [profile(run, pairs) for pairs in given.pairs],
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
