"""What the tests of full-scale runs share: the arguments of a small one, and its log."""

import json
from pathlib import Path

ITERATIONS = 20
SMALL = (
    "--experiment table1/ulfd --arch resnet8 --weights random --crop 32 --resize 36 "
    f"--recipe.batch-size 12 --recipe.iterations {ITERATIONS} --numerics.precision float32 "
    "--workers 0 --checkpoint-every 4 --device cpu --frost procedural"
).split()


def rows(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]
