"""What a training step costs: `python -m benchmarks.step_cost`, six minutes of one core.

The same network under seven losses, from the cross entropy of degraded images to the official UEM.
A step is the forward pass, the backward pass and Adam. Times are the processor's on one thread,
which waiting for others does not lengthen, of rounds in which the seven take turns in one process.

Counted, and so the same on any device: floating point operations of one pair, forward and backward
(convolutions and matrix products, two for a multiply-accumulate, as torch counts them); the bytes
that are kept for the backward pass; and the weights. Writes raw JSON, from which
`python -m benchmarks.tables` makes the table.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18, resnet50
from tqdm import tqdm

from benchmarks import measure
from benchmarks.problems import STEPS, StepProblem
from reference_training.config import Network
from reference_training.networks.resnet import ResNet
from ulfd.env import versions
from ulfd.kernels.cpu import library
from ulfd_torch import UEM, SelfDistillation

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Clean images, degraded ones and labels to the loss."""
Loaded = tuple[nn.Module, Loss]
"""What is trained, and by which loss."""
NETWORKS: dict[str, tuple[Callable[[], Any], str]] = {
    "ResNet-8": (lambda: ResNet(Network(), 10), "layer3"),
    "ResNet-18": (resnet18, "layer4"),
    "ResNet-50": (resnet50, "layer4"),
}
"""Each network, and its last feature before pooling."""
CLASSES = 10


def plain(model: nn.Module, layer: str, *, both: bool) -> Loaded:
    """Cross entropy of the degraded images, or of both."""

    def loss(clean: Tensor, degraded: Tensor, labels: Tensor) -> Tensor:
        total = cross_entropy(model(degraded), labels)
        return total + cross_entropy(model(clean), labels) if both else total

    return model, loss


def distilling(
    model: Any, layer: str, *, uem: Callable[[int], UEM | None], teacher: str = "self"
) -> Loaded:
    """Eq. 10, the cross entropy of both and the loss between their features."""
    step = SelfDistillation(model, layer=layer, uem=uem(model.fc.in_features), teacher=teacher)
    return step, lambda *batch: step(*batch).total


REFERENCE = "cross entropy, clean and degraded"
VARIANTS: dict[str, Callable[[Any, str], Loaded]] = {
    "cross entropy, degraded alone": partial(plain, both=False),
    REFERENCE: partial(plain, both=True),
    "+ MSE, no UEM": partial(distilling, uem=lambda channels: None),
    "+ default UEM, a σ for each image": partial(distilling, uem=UEM),
    "+ the same, a σ for each element": partial(
        distilling, uem=partial(UEM, log_variance="element")
    ),
    "+ default UEM, frozen teacher": partial(distilling, uem=UEM, teacher="frozen"),
    "+ official UEM": partial(distilling, uem=UEM.official),
}


def counted(module: nn.Module, loss: Callable[[], Tensor]) -> dict[str, int]:
    """Operations of a loss and its backward pass, bytes kept between the two, trained weights."""
    given = {weight.untyped_storage()._cdata for weight in module.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # which keeps them alive, and so their identities

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in given:
            kept[storage._cdata] = storage
        return tensor

    with FlopCounterMode(display=False) as flops:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda same: same):
            total = loss()
        total.backward()
    return {
        "flops": flops.get_total_flops(),
        "kept_bytes": sum(storage.nbytes() for storage in kept.values()),
        "weights": sum(each.numel() for each in module.parameters() if each.requires_grad),
    }


def prepared(problem: StepProblem, variant: str) -> tuple[nn.Module, Callable[[], Tensor]]:
    """What is trained, and the loss of a batch of random images; the same weights in all."""
    torch.manual_seed(0)
    make, layer = NETWORKS[problem.network]
    module, loss = VARIANTS[variant](make(), layer)
    shape = (problem.pairs, 3, problem.side, problem.side)
    clean, degraded = torch.rand(shape), torch.rand(shape)
    labels = torch.arange(problem.pairs) % CLASSES
    return module, lambda: loss(clean, degraded, labels)


def training(module: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """A step of Adam, so small that the next one has the same to do."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-7)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def measured(problem: StepProblem) -> dict[str, Any]:
    """One network: every variant counted, then timed by turns."""
    made = {name: prepared(problem, name) for name in VARIANTS}
    counts = {name: counted(*each) for name, each in made.items()}
    times = measure.by_turns(
        {name: training(*each) for name, each in made.items()}, time.process_time
    )
    timed = measure.summary(times, REFERENCE)
    return {**asdict(problem), "variants": {name: timed[name] | counts[name] for name in VARIANTS}}


def main() -> None:
    """Measures every network and writes the data."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    default = Path(__file__).parent / "results" / "step_cost_cpu.json"
    parser.add_argument("--out", type=Path, default=default, help="where the raw JSON goes")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    before = os.getloadavg()[0]
    rows = [measured(problem) for problem in tqdm(STEPS, unit="network")]
    load = [round(before, 1), round(os.getloadavg()[0], 1)]
    instructions = next(iter(library.instruction_sets()), "none")
    machine = {**measure.machine(1), "instructions": instructions}
    machine |= {"cores": os.cpu_count(), "load average": load}
    setting = {"machine": machine, "versions": versions(), "reference": REFERENCE}
    results = {**setting, "rows": rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
