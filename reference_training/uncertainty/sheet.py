"""A page to look at: the images that a ranking calls the most and the least degraded."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from reference_training.data.image_files import open_rgb
from reference_training.reporting.blocks import Block, Heading, Paragraph, html_document
from reference_training.runtime.files import write_atomically
from reference_training.runtime.workers import bar
from reference_training.uncertainty.pictures import shown
from reference_training.uncertainty.ranking import Ranking, Scored
from reference_training.uncertainty.scores import STATISTICS

THUMBNAIL = 192  # pixels
TILE = "display:inline-block;width:12rem;margin:.5rem;vertical-align:top"
PICTURE = "display:inline-block;width:5.8rem;height:5.8rem;object-fit:contain;image-rendering:"


@dataclass(frozen=True)
class Tile:
    """An image, what the network saw of it, and its score."""

    name: str
    score: str
    original: bytes  # JPEG
    seen: bytes  # PNG


@dataclass(frozen=True)
class Gallery:
    """Tiles side by side."""

    tiles: tuple[Tile, ...]

    def markdown(self) -> str:
        return "\n".join(f"- {tile.score}: `{tile.name}`" for tile in self.tiles)

    def html(self) -> str:
        return "\n".join(
            f'<figure style="{TILE}">'
            f'<img style="{PICTURE}auto" src="{_uri("jpeg", tile.original)}" alt="">'
            f'<img style="{PICTURE}pixelated" src="{_uri("png", tile.seen)}" alt="">'
            f'<figcaption style="overflow-wrap:anywhere"><b>{html.escape(tile.score)}</b> '
            f"{html.escape(tile.name)}</figcaption></figure>"
            for tile in self.tiles
        )


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _tile(ranking: Ranking, one: Scored) -> Tile:
    image = open_rgb(ranking.root / one.file, upright=True)
    pixels, _ = ranking.meter.view(image)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    encoded = []
    for picture, kind in ((image, "JPEG"), (Image.fromarray(pixels.movedim(0, -1).numpy()), "PNG")):
        with io.BytesIO() as file:
            picture.save(file, kind, quality=90)
            encoded.append(file.getvalue())
    score = f"{STATISTICS[ranking.statistic].label} {ranking.score(one):.4g}"
    return Tile(shown(one.file), score, *encoded)


def write_sheet(ranking: Ranking, out: Path, each: int) -> None:
    """Writes one self-contained page with `each` images from either end of the ranking."""
    worst = ranking.images[:each]
    best = ranking.images[len(worst) :][-each:][::-1]  # an image is not shown twice
    with bar(len(worst) + len(best), "image", "contact sheet") as progress:

        def gallery(images: tuple[Scored, ...]) -> Gallery:
            tiles = []
            for one in images:
                tiles.append(_tile(ranking, one))
                progress.update(1)
            return Gallery(tuple(tiles))

        statistic = STATISTICS[ranking.statistic]
        title = f"{len(ranking.images)} images by predicted degradation"
        blocks: list[Block] = [
            Heading(title, 1),
            Paragraph(
                f"{ranking.root}, ranked by {statistic.label}: {statistic.meaning}. Network: "
                f"{ranking.meter.name}. Left the image, right what the network saw of it."
            ),
            Heading("Most degraded first"),
            gallery(worst),
            Heading("Least degraded first"),
            gallery(best),
        ]
    write_atomically(out, html_document(title, blocks).encode())
