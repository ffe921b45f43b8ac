"""Tables from the measured data: `python -m benchmarks.tables` writes benchmarks/RESULTS.md."""

import json
import statistics
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.problems import BOTH, FORWARD, LossProblem

HERE = Path(__file__).parent
ULFD, ULFD_ALONE = "ulfd", "ulfd, one at a time"
"""Names in the corruptions' data: on a batch, and on one image after another."""
COLUMNS = (
    (BOTH, "fused, one pass"),
    (BOTH, "fused, recomputed"),
    (BOTH, "save and scale"),
    (BOTH, "torch.compile"),
    (BOTH, "eager"),
    (FORWARD, "fused"),
    (FORWARD, "torch.compile"),
    (FORWARD, "eager"),
)


def markdown(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table, its first column left-aligned and the others right-aligned."""
    header = list(header)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def gpu_table(results: dict[str, Any]) -> str:
    """Device time in µs by problem and implementation, and what the one pass reaches."""
    times: dict[tuple[str, str, str], dict[tuple[str, str], dict[str, Any]]] = {}
    for row in results["rows"]:
        key = (row["sigma"], row["layout"], row["dtype"])
        times.setdefault(key, {})[row["task"], row["implementation"]] = row
    body = []
    for (sigma, layout, dtype), found in times.items():
        one = found[BOTH, "fused, one pass"]
        cells = (f"{1e6 * found[column]['seconds']:.0f}" for column in COLUMNS)
        body.append((f"{sigma}, {layout}, {dtype}", *cells, f"{one['share of the copy']:.0%}"))
    titles = (name if task == BOTH else f"forward: {name}" for task, name in COLUMNS)
    return markdown(("σ, memory, dtype", *titles, "one pass, share of a copy"), body)


def ahead_of_time_table(results: dict[str, Any]) -> str:
    """What the compilers made of the one-pass kernels for every target."""

    def widths(counts: dict[str, int]) -> str:
        return ", ".join(f"{count}×{width}" for width, count in counts.items())

    body = (
        (
            f"{row['target']}, {row['dtype']}, {row['sigma']}, {row['layout']}",
            row["registers"],
            row["spills"],
            row["stack"],
            row["float64"],
            f"{row['bytes_read']:g} + {row['bytes_written']:g}",
            widths(row["loads"]),
            widths(row["stores"]),
            ", ".join(f"{gpu} {time:.0f}" for gpu, time in row["predicted_microseconds"].items()),
        )
        for row in results["rows"]
    )
    header = "target, dtype, σ, memory|registers|spills|stack|f64|bytes read + written per element"
    header += "|loads by bits|stores by bits|predicted µs"
    return markdown(header.split("|"), body)


def parity_table(results: dict[str, Any]) -> str:
    """How far each implementation is from float64, in units in the last place."""
    body = (
        (
            f"{row['implementation']}, {row['dtype']}",
            *(f"{row[name]:.1f}" for name in ("loss", "student", "teacher", "log_variance")),
        )
        for row in results["rows"]
    )
    header = ("implementation, dtype", "loss", "by student", "by teacher", "by log-variance")
    return markdown(header, body)


CPU_COLUMNS = (
    "ulfd.ULFDLoss",
    "ulfd_torch.value_and_grad",
    "torch.compile",
    "torch eager",
    "torch GaussianNLLLoss",
    "ulfd_jax",
    "JAX jit",
    "ulfd, NumPy",
    "NumPy",
)


def problem_of(row: dict[str, Any]) -> LossProblem:
    """What a row of a CPU's measurements was asked."""
    fields = {name: row[name] for name in LossProblem.__dataclass_fields__}
    return LossProblem(**fields | {"shape": tuple(row["shape"])})


def cpu_table(results: dict[str, Any]) -> str:
    """Milliseconds by problem and candidate, the fastest of each row in bold."""
    body = []
    for row in results["rows"]:
        times = {
            name: found["median_ms"]
            for name, found in row["candidates"].items()
            if name in CPU_COLUMNS
        }
        fastest = min(times.values())
        cells = []
        for name in CPU_COLUMNS:
            text = f"{times[name]:.3g}" if name in times else ""
            cells.append(f"**{text}**" if times.get(name) == fastest else text)
        body.append((problem_of(row), *cells))
    return markdown(("features, σ, dtype, memory: task", *CPU_COLUMNS), body)


def cpu_main_table(results: dict[str, Any]) -> str:
    """Every candidate on the main problem: time, spread, memory, share of the memory's limit."""
    candidates = results["rows"][0]["candidates"]
    limit = candidates["memory's limit"]["median_ms"]
    body = (
        (
            name,
            f"{found['median_ms']:.2f}",
            "{:.2f} to {:.2f}".format(*found["quartiles_ms"]),
            f"{found['speed']:.2f}×",
            f"{limit / found['median_ms']:.0%}",
            f"{found['peak_bytes'] / 2**20:.0f}",
        )
        for name, found in sorted(candidates.items(), key=lambda item: item[1]["median_ms"])
    )
    header = (
        "candidate|ms|quartiles|speed against torch.compile|share of the limit|peak memory, MiB"
    )
    return markdown(header.split("|"), body)


def _slower(results: dict[str, Any], spinning: dict[str, Any], *names: str) -> str:
    """The range, over all problems, of how much longer candidates took beside spinning threads."""
    ratios = [
        theirs["candidates"][name]["median_ms"] / ours["candidates"][name]["median_ms"]
        for ours, theirs in zip(results["rows"], spinning["rows"], strict=True)
        for name in names
        if name in ours["candidates"]
    ]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def cpu_section(results: dict[str, Any], spinning: dict[str, Any]) -> str:
    """The loss on a CPU; `spinning` is the same under OpenMP's default policy of waiting."""
    machine, versions = results["machine"], results["versions"]
    ours = _slower(results, spinning, "ulfd.ULFDLoss", "ulfd_torch.value_and_grad")
    shape = tuple(results["rows"][0]["shape"])
    return f"""## On a CPU

{machine["processor"]}, {machine["threads"]} threads, {machine["instructions"]}; torch
{versions["torch"]}, JAX {versions["jax"]}, NumPy {versions["numpy"]}, numexpr
{versions["numexpr"]}. Medians of rounds in which the candidates take turns; speeds are medians of
the rounds' ratios (method: `benchmarks/cpu.py`, `make bench-published`). The memory's limit is a
pass that reads three arrays and writes two around the caches, into memory that is there already, as
for "the kernel alone"; the others allocate their results, ulfd from a pool
(`ulfd.kernels.cpu.buffers`), ulfd_jax from XLA. Value and gradients by student and σ of {shape},
full σ, float32:

{cpu_main_table(results)}

![the same as a plot](results/cpu.svg)

Medians in ms; "value and gradients" with an upstream gradient of 1 unless it says otherwise.
`ULFDLoss` runs with `backward`; all of ulfd is one pass, but for an upstream gradient other than 1,
which scales the gradients in place. What a call costs beside the kernel, under 0.06 ms with warm
caches, is about 0.4 ms (`value_and_grad`) or 0.6 (`ULFDLoss` with `backward`) where other work has
driven it from them. So all are timed, but for problems that one candidate solves within a
millisecond: these are repeated, the caches warm.

{cpu_table(results)}

OpenMP's idle threads waited passively (`OMP_WAIT_POLICY`, as `make bench-published` sets it). By
default they spin for a moment after each of torch's operations, on the cores that ulfd's own
threads want: then ulfd_torch took {ours} times as long, torch.compile
{_slower(results, spinning, "torch.compile")} times (`results/cpu_spinning.json`).
"""


def step_table(results: dict[str, Any]) -> str:
    """Each network's training steps: time, operations, the UEM's weights, memory."""
    body = []
    for row in results["rows"]:
        pairs, reference = row["pairs"], row["variants"][results["reference"]]
        title = f"**{row['network']}**, {pairs} pairs of {row['side']}×{row['side']}"
        body.append((title, *[""] * 6))
        for name, found in row["variants"].items():
            more = found["weights"] - reference["weights"]
            body.append(
                (
                    name,
                    f"{found['median_ms']:.0f}",
                    f"{1 / found['speed']:.2f}×",
                    f"{found['flops'] / pairs / 1e9:.3g}",
                    f"{found['flops'] / reference['flops'] - 1:+.1%}",
                    f"{more / 1e6:.3g}" if more else "",
                    f"{found['kept_bytes'] / pairs / 2**20:.3g}",
                )
            )
    header = "loss|ms a step|ratio|GFLOP a pair|of them more|UEM's weights, M|MiB kept a pair"
    return markdown(header.split("|"), body)


def step_section(results: dict[str, Any]) -> str:
    """A training step with the network under each loss."""
    machine, (before, after) = results["machine"], results["machine"]["load average"]
    return f"""## A training step

Measured: the processor's time of forward pass, backward pass and Adam in float32, one thread
({machine["processor"]}, {machine["instructions"]}; torch {results["versions"]["torch"]}). Medians
of rounds in which the losses take turns in one process; the ratio to cross entropy on clean and
degraded images is the median of the rounds'. {machine["cores"]} cores were shared with other work
(load average {before} before, {after} after): trust the ratios, and no difference below 5 %.

Counted, the same on any device: floating point operations of a pair, forward and backward (of
convolutions and matrix products, 2 for a multiply-accumulate, by torch's `FlopCounterMode`), and
MiB kept for the backward pass (method: `benchmarks/step_cost.py`).

{step_table(results)}
"""


@contextmanager
def _svg_figure(path: Path, label: str, figsize: tuple[float, float]) -> Iterator[Any]:
    """Axes for bars; the same file from the same data."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ulfd"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=figsize)
    yield axes
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


def cpu_plot(results: dict[str, Any], path: Path) -> None:
    """The main problem's times as bars."""
    candidates = results["rows"][0]["candidates"]
    ordered = sorted(candidates.items(), key=lambda item: -item[1]["median_ms"])
    colours = ["tab:orange" if name.startswith("ulfd") else "tab:grey" for name, _ in ordered]
    with _svg_figure(path, "ms, value and gradients", figsize=(8, 4)) as axes:
        bars = axes.barh(
            [name for name, _ in ordered], [row["median_ms"] for _, row in ordered], color=colours
        )
        axes.bar_label(bars, fmt="%.1f", padding=3)


def _corruption_times(row: dict[str, Any]) -> tuple[dict[str, float], str | None]:
    """Everybody's ms per image, means over the severities, and the fastest exact peer."""
    spent = {who: statistics.mean(values) for who, values in row["ms"].items()}
    faithful = [who for who, exact in row["exact"].items() if exact]
    return spent, min(faithful, key=lambda who: spent[who], default=None)


def corruptions_section(results: dict[str, Any]) -> str:
    """Milliseconds per image by type, the fastest exact peer's, and which peers are not exact."""
    machine, versions, body = results["machine"], results["versions"], []
    totals = dict.fromkeys((ULFD, ULFD_ALONE), 0.0)
    for name, row in results["rows"].items():
        spent, peer = _corruption_times(row)
        for who in totals:
            totals[who] += spent[who]
        inexact = ", ".join(who.split()[0] for who, exact in row["exact"].items() if not exact)
        cells = ["", "", "", ""]
        if peer:
            ratios = (f"{spent[peer] / spent[who]:.1f}×" for who in totals)
            cells = [f"{spent[peer]:.2f}", *ratios, peer.split()[0]]
        memory = f"{row['MiB']:.1f}", row["operations"]
        body.append(
            [name, f"{spent[ULFD]:.2f}", f"{spent[ULFD_ALONE]:.2f}", *cells, inexact, *memory]
        )
    sums = (f"{total:.1f}" for total in totals.values())
    body.append(["**sum of all 19**", *sums, *[""] * 7])
    header = ("type", "ulfd, batch 32", "ulfd, batch 1", "fastest exact peer", "by batch 32")
    header += ("by batch 1", "which", "not exact", "MiB", "operations")
    peers = dict.fromkeys(who for row in results["rows"].values() for who in row["exact"])
    before, after = machine["load average"]
    return f"""## Corruptions

Processor time in ms per image of {results["image"][0]}×{results["image"][1]} on one thread with
{machine["capability"]}, medians of {results["rounds"]} rounds in which the candidates take turns,
each row the mean over the five severities (method, and what "exact" means:
`benchmarks/corruptions.py`). Peers take one image at a time: {", ".join(peers)}. Those on
tensors are given floating point and return it; ulfd reads and writes 8 bits. MiB are the
temporaries of one image, results included, and operations torch's, views left out; on a CPU a batch
is worked on image by image. torch {versions["torch"]}, OpenCV {versions["cv2"]}; load average of
{machine["cores"]} cores {before} before and {after} after.

{markdown(header, body)}

![the same as a plot](results/corruptions_cpu.svg)

Where the peer's ratio is below 1 it is ahead. Gaussian noise: torch-uncertainty draws from torch's
one generator and returns floating point; here every image has a stream of its own, the same on
every device, and 8 bits. Brightness, saturation, pixelation and JPEG at batch 1: a call costs about
0.1 ms, in which arguments are checked and the image is copied, and the work itself little more; the
last two are Pillow's, whose pixels are interleaved and those of a tensor are not.

With more threads than free cores OpenMP's threads spin at the end of each of torch's operations,
and an image may take a hundred times as long: use one thread in each process (`DataLoader`'s
workers have one, elsewhere `torch.set_num_threads(1)`), or set `OMP_WAIT_POLICY=passive`.
"""


def corruptions_plot(results: dict[str, Any], path: Path) -> None:
    """Milliseconds by type as bars: ulfd's two, and the fastest exact peer's."""
    rows = results["rows"]
    times = [_corruption_times(row) for row in rows.values()]
    series = {who: [spent[who] for spent, _ in times] for who in (ULFD, ULFD_ALONE)}
    series["fastest exact peer"] = [spent[peer] if peer else 0 for spent, peer in times]
    with _svg_figure(path, "ms per image", figsize=(8, 7)) as axes:
        for place, ((who, values), colour) in enumerate(
            zip(series.items(), ("tab:orange", "moccasin", "tab:grey"), strict=True)
        ):
            heights = [row + 0.27 * (place - 1) for row in range(len(rows))]
            axes.barh(heights, values, height=0.27, color=colour, label=who)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.invert_yaxis()
        axes.legend(frameon=False)


def load(name: str) -> dict[str, Any]:
    """A file of measurements."""
    return json.loads((HERE / "results" / name).read_text(encoding="utf-8"))


def document() -> str:
    """All of RESULTS.md."""
    gpu, compiled, parity = (
        load("gpu_h100.json"),
        load("ahead_of_time.json"),
        load("parity.json"),
    )
    machine, copies = gpu["machine"], gpu["copies"]["float32"]
    copy = copies["3 read 2 written"]["TB/s"]
    first = max(
        row["first_call_seconds"] for row in gpu["rows"] if "fused" in row["implementation"]
    )
    return f"""# Measured and compiled

Made by `python -m benchmarks.tables` from `results/*.json`; do not edit.

## {machine["gpu"]}

Features {tuple(gpu["shape"])}, device time in µs, cold second-level cache, medians (method:
`benchmarks/gpu.py`). torch {machine["torch"]}, Triton {machine["triton"]}, driver
{machine["driver"]}. The copy is the fastest found on the same card with the same mix of reads and
writes: {copy:.2f} TB/s for 3 reads and 2 writes in float32, of {machine["datasheet TB/s"]} TB/s in
the datasheet. "One pass" is `ulfd_torch.value_and_grad`, "recomputed" is `ulfd_loss` with
`backward`; "save and scale" is what other fused-loss libraries do. The slowest first call of a
fused kernel, which compiles it, took {first:.1f} s.

{gpu_table(gpu)}

{cpu_section(load("cpu.json"), load("cpu_spinning.json"))}
{step_section(load("step_cost_cpu.json"))}
## Ahead of time

Triton {compiled["triton"]}, no GPU: `python -m ulfd.kernels.ahead_of_time`. Bytes are counted from
the machine code of the interior; the predicted time is these bytes at the datasheet's bandwidth,
a lower bound and not a measurement.

{ahead_of_time_table(compiled)}

## Parity

Loss and gradients against the float64 closed form: the largest difference over the shapes of σ, in
units in the last place of the result's dtype (the loss of half-precision inputs is float32), at the
size of the largest term of its sum. Features {tuple(parity["shape"])}, exact in each dtype;
`python -m benchmarks.parity`, with NumPy {parity["versions"]["numpy"]}, torch
{parity["versions"]["torch"]}, JAX {parity["versions"]["jax"]}.

{parity_table(parity)}

{corruptions_section(load("corruptions_cpu.json"))}"""


if __name__ == "__main__":
    (HERE / "RESULTS.md").write_text(document(), encoding="utf-8")
    cpu_plot(load("cpu.json"), HERE / "results" / "cpu.svg")
    corruptions_plot(load("corruptions_cpu.json"), HERE / "results" / "corruptions_cpu.svg")
