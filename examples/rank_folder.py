"""Shows which images of a folder a trained network's UEM calls the most and the least degraded.

`python -m examples.rank_folder --model MODEL --folder FOLDER` writes a page; MODEL is the export of
a finished run, or a training's folder as RUN/seed-0/ulfd@uem=official.
"""

import base64
import html
import io
from pathlib import Path

import torch
import tyro

from reference_training.runtime.image_files import open_rgb
from reference_training.uncertainty.meter import load_meter
from reference_training.uncertainty.ranking import rank

THUMBNAIL = 192  # pixels
STYLE = "figure{display:inline-block;width:12rem;overflow-wrap:anywhere}img{max-width:100%}"


def figure(path: Path, caption: str) -> str:
    """An image and its caption, as HTML that loads nothing."""
    image = open_rgb(path, upright=True)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    with io.BytesIO() as file:
        image.save(file, "JPEG")
        content = base64.b64encode(file.getvalue()).decode("ascii")
    shown = f'<img src="data:image/jpeg;base64,{content}" alt="">'
    return f"<figure>{shown}<figcaption>{html.escape(caption)}</figcaption></figure>"


def main(model: Path, folder: Path, out: Path = Path("ranking.html"), images: int = 24) -> None:
    """Writes the page; `images` is how many of either end it shows."""
    meter = load_meter(model, "cuda" if torch.cuda.is_available() else "cpu")
    rows = [row for row in rank(meter, folder) if "error" not in row]
    most = rows[:images]
    least = rows[len(most) :][-images:][::-1]  # an image is not shown twice
    page = [f'<!doctype html><meta charset="utf-8"><title>Ranking</title><style>{STYLE}</style>']
    for title, ends in (("Most degraded first", most), ("Least degraded first", least)):
        page.append(f"<h2>{title}</h2>")
        page += [
            figure(folder / row["file"], f"θ {row['theta']:.4g} {row['file']}") for row in ends
        ]
    out.write_text("\n".join(page), encoding="utf-8", errors="replace")


if __name__ == "__main__":
    tyro.cli(main)
