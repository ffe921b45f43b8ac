"""Regression with an uncertainty for each answer: `python -m examples.regression`.

scikit-learn's diabetes data (442 patients, 10 measurements, the disease's progress a year later). A
small network answers with a mean and a log-variance; the loss is one member of ulfd's family. Ends
in a table over ten splits, and with `--plot calibration.png` in the calibration of each loss. Runs
from the checkout, with `pip install '.[examples]'`.
"""

import copy
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import tyro
from scipy import stats
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from tqdm import tqdm

from ulfd_torch import ULFDLoss

LEVELS = np.linspace(0.05, 0.95, 19)
"""The central intervals' probabilities at which coverage is measured."""
# The distribution that each loss is the likelihood of. Its scale is exp(σ/2): for a Laplace or a
# Student's t that isn't the standard deviation.
DISTRIBUTIONS = {
    "mse": stats.norm(),
    "gaussian_nll": stats.norm(),
    "beta_nll": stats.norm(),
    "student_t": stats.t(4),
    "laplace": stats.laplace(),
}


class Result(NamedTuple):
    """One loss on one split's test patients; units are those of the data."""

    rmse: float
    nll: float  # nats, the mean of −log p(target)
    coverage: np.ndarray  # of the central intervals of probability `LEVELS`


class Patients(NamedTuple):
    """Standardised measurements (N, 10) and answers (N, 1)."""

    x: Tensor
    y: Tensor


def split(seed: int) -> tuple[list[Patients], float]:
    """240 patients to train with, 60 to stop by, 142 to test; and the answers' unit."""
    inputs, target = load_diabetes(return_X_y=True)
    parts = np.split(np.random.default_rng(seed).permutation(len(target)), [240, 300])
    center, unit = target[parts[0]].mean(), target[parts[0]].std()
    x = torch.tensor(inputs / inputs[parts[0]].std(0), dtype=torch.float32)
    y = torch.tensor((target - center) / unit, dtype=torch.float32)[:, None]
    return [Patients(x[part], y[part]) for part in parts], float(unit)


def fit(name: str, seed: int, steps: int = 600) -> Result:
    """Train with the loss `name` on the split `seed`, and measure on its test patients."""
    (train, validation, test), unit = split(seed)
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(10, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 2)
    )
    # The limits keep one patient, met by chance, from a weight of e²⁰.
    loss = ULFDLoss.named(name, clamp=None if name == "mse" else (-6, 6))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def loss_of(patients: Patients) -> Tensor:
        mean, log_variance = network(patients.x).chunk(2, dim=1)
        return loss(mean, patients.y, None if name == "mse" else log_variance)

    best, weights = math.inf, copy.deepcopy(network.state_dict())
    for step in range(steps):
        rows = torch.randint(len(train.x), (64,))
        optimizer.zero_grad()
        loss_of(Patients(train.x[rows], train.y[rows])).backward()
        optimizer.step()
        if step % 10 == 9:
            with torch.no_grad():
                now = loss_of(validation).item()
            if now < best:
                best, weights = now, copy.deepcopy(network.state_dict())
    network.load_state_dict(weights)
    with torch.no_grad():
        mean, log_variance = network(test.x).chunk(2, dim=1)
        if name == "mse":  # which predicts no variance: the validation patients' stands for all
            log_variance = torch.full_like(mean, math.log(best))
    scale = unit * (log_variance.clamp(-6, 6) / 2).exp().numpy()
    error = unit * (test.y - mean).numpy()
    distribution = DISTRIBUTIONS[name]
    nll = np.log(scale) - distribution.logpdf(error / scale)
    coverage = (np.abs(error / scale) < distribution.ppf(0.5 + LEVELS / 2)).mean(0)
    return Result(float(np.sqrt(np.square(error).mean())), float(nll.mean()), coverage)


def table(results: dict[str, list[Result]]) -> str:
    """Markdown: the mean over the splits and its standard error."""
    lines = [
        "| loss | RMSE | −log p, nats | of 90 % intervals hold |",
        "|---|---:|---:|---:|",
    ]
    ninety = int(np.argmin(np.abs(LEVELS - 0.9)))
    for name, splits in results.items():
        columns = np.array([(r.rmse, r.nll, 100 * r.coverage[ninety]) for r in splits])
        mean, error = columns.mean(0), columns.std(0, ddof=1) / math.sqrt(len(splits))
        cells = (f"{m:.{d}f} ± {e:.{d}f}" for m, e, d in zip(mean, error, (1, 3, 1), strict=True))
        rmse, nll, held = cells
        lines.append(f"| {name} | {rmse} | {nll} | {held} % |")
    return "\n".join(lines)


def draw(results: dict[str, list[Result]], path: Path) -> None:
    """The share of test patients within the central intervals against what it should be."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="interval's probability", ylabel="patients within")
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="honest")
    for name, splits in results.items():
        axes.plot(LEVELS, np.mean([result.coverage for result in splits], axis=0), label=name)
    axes.legend(frameon=False)
    figure.savefig(path)


def main(splits: int = 10, steps: int = 600, plot: Path | None = None) -> None:
    """Compare the family's losses on the diabetes data.

    Args:
        splits: how often the patients are split anew; two at least.
        steps: of 64 patients each.
        plot: a file for the calibration curves (.png, .svg).
    """
    runs = [(name, seed) for seed in range(splits) for name in DISTRIBUTIONS]
    results: dict[str, list[Result]] = {name: [] for name in DISTRIBUTIONS}
    for name, seed in tqdm(runs, unit="fit"):
        results[name].append(fit(name, seed, steps))
    print(table(results))
    if plot is not None:
        draw(results, plot)


if __name__ == "__main__":
    tyro.cli(main)
