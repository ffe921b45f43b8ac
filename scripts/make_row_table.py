"""The table in docs/reproducing.md of every network of the paper: what makes it, what differs.

`python -m scripts.make_row_table` puts it there again.
"""

from pathlib import Path

from reference_training.methods.trainings import training
from reference_training.paper.experiments import ROWS, Row
from reference_training.paper.recipes import PAPERS, differences, recipe_of, words

PAGE = Path(__file__).parents[1] / "docs" / "reproducing.md"
HEAD = "| `--experiment` | in the paper | method | recipe | what differs |\n|---|---|---|---|---|\n"


def line(names: list[str], row: Row) -> str:
    """A network's line: its names in the tables, the method, the recipe, and what differs."""
    how = recipe_of(row.training)
    recipe = training(row.training).recipe(how.recipe)
    told = (
        how.whose
        if how.whose == PAPERS or not recipe.iterations
        else (f"{how.whose}: {words(recipe)}")
    )
    label = row.label if row.arch == Row.arch else f"{row.label}, {row.arch}"
    rows = ", ".join(f"`{name}`" for name in names)
    return f"| {rows} | {label} | {how.method} | {told} | {differences(row)} |\n"


def table() -> str:
    """The Markdown table, a line for each network."""
    networks: dict[tuple[str, str, str | None], list[str]] = {}
    for name, row in ROWS.items():
        networks.setdefault((row.training, row.arch, row.adaptation), []).append(name)
    return HEAD + "".join(line(names, ROWS[names[0]]) for names in networks.values())


def main() -> None:
    """Replaces the table, with which the page ends."""
    before = PAGE.read_text(encoding="utf-8").partition(HEAD)[0]
    PAGE.write_text(before + table(), encoding="utf-8")


if __name__ == "__main__":
    main()
