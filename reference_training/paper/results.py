"""The paper's printed numbers, paper_results.json, read once."""

import json
from pathlib import Path
from typing import Any

PAPER: dict[str, Any] = json.loads(
    Path(__file__).with_name("paper_results.json").read_text(encoding="utf-8")
)
