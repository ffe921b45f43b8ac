"""Draws the README's picture: `python -m scripts.make_readme_picture` (three minutes on two cores).

A photograph that no training has seen, the same with a square of noise, and where the network that
examples/uncertainty_map.ipynb trains is uncertain. The photograph: Rachel Michetti, CC0.
"""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples/uncertainty_map.ipynb"
PICTURE = ROOT / "docs/_static/uncertainty.jpg"
LAST = "def degraded_in"  # in the last cell that is needed; figures and numbers follow


def definitions() -> dict[str, Any]:
    """The names of the notebook, its network and UEM trained."""
    names: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            exec(compile(source, str(NOTEBOOK), "exec"), names)
            if LAST in source:
                return names
    raise ValueError(f"{NOTEBOOK} has no cell with {LAST!r}.")


def main() -> None:
    """Train, and draw three panels."""
    names = definitions()
    photograph = names["testing"]["coffee"]
    noisy = names["degraded_in"](names["square"](photograph, seed=2), photograph, "gaussian_noise")
    theta = names["maps"](photograph, noisy)["θ, pairs degraded in part"]
    figure = Figure(figsize=(9, 2.25), layout="constrained")
    panels = {
        "clean": photograph.movedim(0, -1),
        "degraded in a square": noisy.movedim(0, -1),
        "θ: where the network is uncertain": theta,
    }
    for axes, (title, image) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        axes.imshow(image.numpy(), cmap="inferno")
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    figure.savefig(PICTURE, dpi=120, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()
