"""Where a training step's time goes: `python -m benchmarks.step_profile --out FILE`.

A step is forward, backward and optimiser. The UEM and the loss are timed where they are, inside it.
By turns with the steps (A B A B ...) a data sheet of this CPU is measured, from which the model of
`--plan` predicts their shares of the step. One thread; processor time; the least of the
rounds, because a shared machine only adds.
"""

import argparse
import ctypes
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cpu_data_sheet import DataSheet
from benchmarks.timed import Timed
from reference_training.config import PaperRun
from reference_training.corruptions import SEEN, corrupt
from reference_training.data.batch import Batch
from reference_training.experiments import plan
from reference_training.run import parse
from ulfd.env import versions

ROUNDS = 7
CASES = (
    "",
    "--crop 96 --resize 110",
    "--arch resnet18",
    "--uem.width 256",
    "--crop 32 --resize 36",
)
"""Changes of ResNet-50 at 64 pixels. The model was made with the first alone."""


class Profile:
    """A step whose parts are timed, and what is measured by turns with it."""

    def __init__(self, run: PaperRun, pairs: int) -> None:
        torch.manual_seed(0)
        order = torch.channels_last
        self.run, self.pairs = run, pairs
        self.step = plan.make_step(run, classes=1000).to(memory_format=order)
        images = torch.randn(pairs, 3, run.crop, run.crop).contiguous(memory_format=order)
        self.batch = Batch(images, images + 0.1 * torch.randn_like(images), torch.arange(pairs))
        self.optimizers = {
            part: torch.optim.Adam(module.parameters(), fused=True)
            for part, module in (("network", self.step.model), ("UEM", self.step.uem))
        }
        # One block of each stage, whose FLOP are about the same, and of the UEM.
        model, uem = self.step.model, self.step.uem
        stages = [getattr(model, name) for name in vars(model)["_modules"] if "layer" in name]
        blocks = [*(stage[-1] for stage in stages), uem.blocks[0], uem.deconv]
        shapes: dict[nn.Module, torch.Size] = {}

        def look(layer: nn.Module, given: tuple[Tensor]) -> None:
            shapes[layer] = given[0].shape

        hooks = [
            layer.register_forward_pre_hook(look)
            for block in blocks
            for layer in block.modules()
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        ]
        self.uem, self.loss = Timed(uem), Timed(self.step.loss)
        self.step.uem, self.step.loss = self.uem, self.loss
        self.levels = torch.randint(0, 256, images.shape, dtype=torch.uint8)
        self.train()
        for hook in hooks:
            hook.remove()
        self.sheet = DataSheet(torch.zeros(shapes[uem.deconv]), list(shapes.items()))

    def train(self) -> dict[str, float]:
        """One step: seconds of its parts."""
        started = time.process_time()
        self.step.zero_grad()
        self.step(self.batch).loss.backward()
        passed = time.process_time()
        update = {}
        for part, optimizer in self.optimizers.items():
            begun = time.process_time()
            optimizer.step()
            update[part] = time.process_time() - begun
        return {
            "step": time.process_time() - started,
            "forward and backward": passed - started,
            "UEM forward": self.uem.forward_seconds,
            "UEM backward": self.uem.backward_seconds,
            "UEM update": update["UEM"],
            "loss forward": self.loss.forward_seconds,
            "loss backward": self.loss.backward_seconds,
            "network update": update["network"],
        }

    def degrade(self) -> dict[str, float]:
        """Seconds of the corruptions of a batch, which are no part of the step."""
        names = [SEEN[at % len(SEEN)] for at in range(self.pairs)]
        severities = [1 + at % 5 for at in range(self.pairs)]
        started = time.process_time()
        seeds = torch.arange(self.pairs)
        parameters = "tiny64" if self.run.crop <= 64 else "imagenet224"
        corrupt(self.levels, names, severities, seeds=seeds, parameters=parameters)
        return {"degradation": time.process_time() - started}

    def measure(self) -> dict[str, float]:
        """The least of interleaved rounds, after one to warm up."""
        rounds = [
            self.train() | self.sheet.measure() | self.degrade() for number in range(ROUNDS + 1)
        ]
        del rounds[0]
        return {name: min(row[name] for row in rounds) for name in rounds[0]}


def paper_run(changes: str) -> PaperRun:
    """The run that a case of `CASES` describes."""
    small = "--experiment table1/ulfd --crop 64 --resize 73 --numerics.precision float32"
    run = parse([*small.split(), *changes.split()])
    assert isinstance(run, PaperRun)
    return run


def profile(changes: str, pairs: int) -> dict[str, Any]:
    """One configuration: seconds, the data sheet, and the shares beside those predicted from it."""
    run = paper_run(changes)
    one = Profile(run, pairs)
    seconds = one.measure()
    device = one.sheet.device(seconds)
    cost = plan.cost(run, pairs)
    predicted = cost.seconds(device)
    measured = {
        part: sum(
            value
            for name, value in seconds.items()
            if name in (f"{part} forward", f"{part} backward", f"{part} update")
        )
        for part in ("UEM", "loss")
    }
    return {
        "changes": changes,
        "pairs": pairs,
        "seconds": seconds,
        "device": device._asdict(),
        "predicted_seconds": predicted | {"step": sum(predicted.values())},
        "shares": {
            part: {
                "predicted": predicted[part] / sum(predicted.values()),
                "measured": measured[part] / seconds["step"],
            }
            for part in measured
        },
        "flop_share_of_uem": cost.uem_flops / cost.forward_flops,
        "gflop_per_second": cost.flops * pairs / seconds["step"] / 1e9,
    }


def _keep_memory() -> None:
    """Has glibc give no memory back, as torch does on GPUs: a step finds that of the last one.

    Else first touches of fresh pages would come and go with the order of the allocations, and the
    loss's own pool would empty itself between steps that other programs slow down.
    """
    trim_threshold, mmap_max = -1, -4
    libc = ctypes.CDLL(None)
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(mmap_max, 0)
    os.environ["ULFD_POOL_MIB"] = "0"


def main() -> None:
    """Measures, compares with the plan, writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/step_profile.json"))
    parser.add_argument("--pairs", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--cases", nargs="+", default=CASES, help="options of the run")
    given = parser.parse_args()
    torch.set_num_threads(1)
    _keep_memory()
    profiles = []
    for changes in given.cases:
        for pairs in given.pairs:
            profiles.append(profile(changes, pairs))
            shares = ", ".join(
                f"{part} {share['measured']:.4%} measured, {share['predicted']:.4%} predicted"
                for part, share in profiles[-1]["shares"].items()
            )
            print(f"{changes or '64 pixels'}, {pairs} pairs: {shares}", flush=True)
    result = {
        "what": "a step of ResNet-50 at 64 pixels, float32, on one thread of a CPU; changes of it",
        "load": os.getloadavg()[0],
        "versions": versions(),
        "profiles": profiles,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
