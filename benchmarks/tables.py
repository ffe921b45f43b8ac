"""Tables from the measured data: `python -m benchmarks.tables` writes benchmarks/RESULTS.md."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FORWARD, BOTH = "forward", "forward and backward"
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


def gpu_table(results: dict[str, Any], columns: Iterable[tuple[str, str]] = COLUMNS) -> str:
    """Device time in µs by problem and implementation, and what the one pass reaches."""
    times: dict[tuple[str, str, str], dict[tuple[str, str], dict[str, Any]]] = {}
    for row in results["rows"]:
        key = (row["sigma"], row["layout"], row["dtype"])
        times.setdefault(key, {})[row["task"], row["implementation"]] = row
    columns = list(columns)
    body = []
    for (sigma, layout, dtype), found in times.items():
        one = found[BOTH, "fused, one pass"]
        cells = (f"{1e6 * found[column]['seconds']:.0f}" for column in columns)
        body.append((f"{sigma}, {layout}, {dtype}", *cells, f"{one['share of the copy']:.0%}"))
    titles = (name if task == BOTH else f"forward: {name}" for task, name in columns)
    return markdown(("σ, memory, dtype", *titles, "one pass, share of a copy"), body)


def readme_table(results: dict[str, Any]) -> str:
    """The README's excerpt of `gpu_table`: the full σ, value and gradients."""
    rows = [row for row in results["rows"] if row["sigma"] == "full"]
    return gpu_table({"rows": rows}, [column for column in COLUMNS if column[0] == BOTH])


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
def corruptions_table(results: dict[str, Any]) -> str:
def corruptions_section(results: dict[str, Any]) -> str:
    """Milliseconds per image by type, each the mean over the severities, and the ratios to ours."""
    rows, machine, versions = results["rows"], results["machine"], results["versions"]
    names = list(dict.fromkeys(row["type"] for row in rows))
    columns = list(rows[0]["ms"])
    ours, peers = columns[0], [who for who in columns if who.startswith("imagecorruptions")]

    def line(title: str, chosen: list[str]) -> list[str]:
        found = [row["ms"] for row in rows if row["type"] in chosen]
        spent = {who: sum(ms[who] for ms in found) * len(names) / len(rows) for who in columns}
        ratios = (f"{spent[peer] / spent[ours]:.1f}×" for peer in peers)
        return [title, *(f"{spent[who]:.2f}" for who in columns), *ratios]

    body = [line(name, [name]) for name in names]
    body += [line("**sum of the 15**", names[:15]), line("**sum of all 19**", names)]
    table = markdown(("type", *columns, *(f"{peer} / {ours}" for peer in peers)), body)
    before, after = machine["load average"]
    return f"""## Corruptions

Processor time in ms per image of {results["image"][0]}×{results["image"][1]} on one core with
{machine["capability"]}, medians of {results["rounds"]} rounds, each row the mean over the five
severities (method and peers: `benchmarks/corruptions.py`). {ours} works on a batch of
{results["batch"]}. torch {versions["torch"]}, OpenCV {versions["cv2"]}; load average of
{machine["cores"]} cores {before} before and {after} after.

{table}
"""


def load(name: str) -> dict[str, Any]:
    """A file of measurements."""
    return json.loads((HERE / "results" / name).read_text(encoding="utf-8"))


def document() -> str:
    """All of RESULTS.md."""
    gpu, compiled = load("gpu_h100.json"), load("ahead_of_time.json")
    parity = load("parity.json")
    corruptions = load("corruptions_cpu.json")
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
## Corruptions

Processor time in ms per image of {corruptions["image"][0]}×{corruptions["image"][1]} on one core with
{corruptions["machine"]["capability"]}, medians of {corruptions["rounds"]} rounds, each row the mean over
the five severities (method and peers: `benchmarks/corruptions.py`). ulfd works on a batch of
{corruptions["batch"]}. torch {corruptions["versions"]["torch"]}, OpenCV {corruptions["versions"]["cv2"]}; load
average {corruptions["machine"]["load average"][0]} before and {corruptions["machine"]["load average"][1]} after.

{corruptions_table(corruptions)}
"""
{corruptions_section(load("corruptions_cpu.json"))}"""


if __name__ == "__main__":
    (HERE / "RESULTS.md").write_text(document(), encoding="utf-8")
