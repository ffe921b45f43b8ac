"""The loss on this CPU against what a user would pick instead: `make bench-published`.

Every candidate is checked against the float64 closed form before it is timed; the candidates of a
case take turns in one process (`benchmarks.measure`). Writes raw JSON, from which
`python -m benchmarks.tables` makes the tables and the plot.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numexpr
import torch
from tqdm import tqdm

from benchmarks import measure
from benchmarks.losses import COMPILED, ON_CPU, Oracle, serving, tensors
from benchmarks.problems import CPU_LOSSES, LossProblem
from benchmarks.tables import problem_of
from ulfd.env import versions
from ulfd.kernels.cpu import buffers, library


def measured(problem: LossProblem) -> dict[str, Any]:
    """One problem: every candidate checked, timed, and asked for its memory."""
    torch._dynamo.reset()
    given = tensors(problem)
    oracle = Oracle(problem, given)
    runs = {}
    for candidate in serving(ON_CPU, problem):
        runs[candidate.name] = candidate.make(problem, given)
        oracle.check(candidate, runs[candidate.name]())
    rows = measure.summary(measure.by_turns(runs), COMPILED)
    for name, run in runs.items():
        buffers.clear()  # what the pool has would hide what a call takes
        rows[name]["peak_bytes"] = measure.peak_memory(run)
    return {**asdict(problem), "candidates": rows}


def earlier(path: Path, setting: dict[str, Any]) -> dict[LossProblem, dict[str, Any]]:
    """The cases that the file has already, if measured on this machine with these versions."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if any(found[part] != setting[part] for part in setting):
        raise SystemExit(
            f"{path} was measured on another machine or with other versions; name a new file with "
            "--out, or leave --cases out to measure all anew."
        )
    return {problem_of(row): row for row in found["rows"]}


def main() -> None:
    """Measures all cases or some, prints each as it comes, and keeps the file's others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the raw JSON goes")
    parser.add_argument("--cases", type=int, nargs="*", help="their numbers; all if not given")
    given = parser.parse_args()
    threads = torch.get_num_threads()
    setting = {
        "machine": {
            **measure.machine(threads),
            "instructions": next(iter(library.instruction_sets()), "none"),
        },
        "versions": {**versions(), "numexpr": numexpr.__version__},
    }
    rows: dict[LossProblem, dict[str, Any]] = {}
    if given.cases is not None and given.out.exists():
        rows = earlier(given.out, setting)
    chosen = range(len(CPU_LOSSES)) if given.cases is None else given.cases
    for index in tqdm(chosen, unit="case"):
        problem = CPU_LOSSES[index]
        rows[problem] = measured(problem)
        tqdm.write(f"\n{problem}")
        ranked = sorted(rows[problem]["candidates"].items(), key=lambda row: row[1]["median_ms"])
        for name, row in ranked:
            tqdm.write(f"  {name:28} {row['median_ms']:9.3f} ms {row['speed']:7.2f}")
        results = {**setting, "rows": [rows[done] for done in CPU_LOSSES if done in rows]}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
