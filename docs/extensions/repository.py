"""What is said elsewhere in the repository, put into a page while it is built, never pasted.

`{measured} NAME` is a table or section made from data, a key of `MEASURED`. `{repository} FILE` is
a Markdown file.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from benchmarks import tables
from ulfd import FAMILY
from ulfd.kernels import jax_versions

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "reference_training" / "paper" / "paper_results.json"


def _section(title: str) -> str:
    """A section of benchmarks/RESULTS.md, made anew from its data, without its heading."""
    sections = dict(part.split("\n", 1) for part in tables.document().split("\n## ")[1:])
    (body,) = (body for name, body in sections.items() if name.startswith(title))
    return body.replace("](results/", "](../benchmarks/results/")


def _paper(table: str, columns: dict[str, str]) -> str:
    """A table as the paper prints it.

    Args:
        table: its key in paper_results.json.
        columns: {the rows' key: the column's title}.
    """
    found = json.loads(PAPER.read_text(encoding="utf-8"))[table]
    rows = (
        [f"{row[key]:.2f}" if key in found["columns"] else row[key] for key in columns]
        for row in found["rows"]
    )
    return tables.markdown(columns.values(), rows)


def _family() -> str:
    """The losses by name."""

    def options(name: str) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in FAMILY[name].options.items())

    rows = (
        (f"`{name}`", one.formula, f"`{options(name)}`" if one.options else "", one.source)
        for name, one in FAMILY.items()
    )
    table = tables.markdown(("name", "each element costs", "options", "source"), rows)
    return table.replace("---:", "---")


MEASURED: dict[str, Callable[[], str]] = {
    "gpu": lambda: _section("NVIDIA"),
    "cpu": lambda: _section("On a CPU"),
    "ahead-of-time": lambda: _section("Ahead of time"),
    "parity": lambda: _section("Parity"),
    "corruptions": lambda: _section("Corruptions"),
    "step": lambda: _section("A training step"),
    "family": _family,
    "jax-versions": jax_versions.table,
    "paper-modules": lambda: _paper(
        "table_5", {"method": "method", "clean": "clean top-1, %", "mce": "mCE"}
    ),
    "paper-lambda": lambda: _paper("table_6a", {"lambda": "λ", "top1": "seen top-1, %"}),
    "paper-sigma": lambda: _paper("table_6b", {"uncertainty": "σ", "mce": "mCE"}),
}


class Measured(SphinxDirective):
    """`{measured} NAME`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The section's nodes; the page is made anew when any of the data changes."""
        for path in (*tables.HERE.glob("results/*.json"), Path(tables.__file__), PAPER):
            self.env.note_dependency(str(path))
        text = MEASURED[self.arguments[0]]()
        return [nodes.container("", *self.parse_text_to_nodes(text), classes=["measured"])]


class Repository(SphinxDirective):
    """`{repository} FILE`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The file's nodes below the page's own heading."""
        path = ROOT / self.arguments[0]
        self.env.note_dependency(str(path))
        text = path.read_text(encoding="utf-8")
        _, _, body = text.partition("\n") if text.startswith("# ") else ("", "", text)
        return self.parse_text_to_nodes(body, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directives."""
    app.add_directive("measured", Measured)
    app.add_directive("repository", Repository)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
