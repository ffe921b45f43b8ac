"""What a report consists of: blocks of Markdown, from which the HTML page is made.

A report is a sequence of blocks, written once as data. To add a kind of block, write a frozen
dataclass with the method `markdown`; nothing else knows the kinds.
"""

from __future__ import annotations

import base64
import html
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from markdown_it import MarkdownIt

ABSENT = "–"
ASSETS = Path(__file__).parent
WIDTH = 98  # of a terminal


class Block(Protocol):
    """One piece of a report."""

    def markdown(self) -> str:
        """The block as GitHub-flavoured Markdown, without blank lines around it."""
        ...


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the report's title."""

    text: str
    level: int = 2

    def markdown(self) -> str:
        return f"{'#' * self.level} {escape_markdown(self.text)}"


@dataclass(frozen=True)
class Paragraph:
    """Running text; `callout` sets it apart, for the one thing a reader must not miss."""

    text: str
    callout: bool = False

    def markdown(self) -> str:
        return f"> **{escape_markdown(self.text)}**" if self.callout else _prose(self.text)


@dataclass(frozen=True)
class Code:
    """Lines for a shell."""

    text: str

    def markdown(self) -> str:
        fence = "`" * (3 + self.text.count("`"))  # longer than any in the text
        return f"{fence}sh\n{self.text}\n{fence}"


@dataclass(frozen=True)
class Picture:
    """A figure: a PNG file beside the Markdown, its bytes inlined in the HTML."""

    path: str
    caption: str
    png: bytes

    def markdown(self) -> str:
        caption = escape_markdown(self.caption)
        return f"![{caption}]({self.path})\n\n*{caption}*"


@dataclass(frozen=True)
class Table:
    """Cells as text: the first `words` columns are words, aligned left, the others numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    notes: tuple[str, ...] = ()
    words: int = 1

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(
                    f"Table: the row {row} has {len(row)} cells under {len(self.header)} headers."
                )

    def markdown(self) -> str:
        align = " --- |" * self.words + " ---: |" * (len(self.header) - self.words)
        rows = [_markdown_row(cells) for cells in (self.header, *self.rows)]
        lines = "\n".join([rows[0], f"|{align}", *rows[1:]])
        return "\n\n".join(
            [f"**{escape_markdown(self.caption)}**", lines, *map(_prose, self.notes)]
        )

    def terminal(self) -> str:
        """The table in plain text, its headers wrapped to the columns' width."""
        columns = list(zip(self.header, *self.rows, strict=True))
        widths = [max(9, *map(len, [*title.split(), *cells])) for title, *cells in columns]
        wrapped = [
            textwrap.wrap(title, width) for title, width in zip(self.header, widths, strict=True)
        ]
        # Headers hang from below, so that their last line stands over the numbers.
        height = max(map(len, wrapped))
        heads = zip(*([""] * (height - len(lines)) + lines for lines in wrapped), strict=True)
        lines = [
            "  ".join(
                cell.ljust(width) if column < self.words else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            for cells in (*heads, *self.rows)
        ]
        lines.insert(height, "─" * len(lines[0]))
        notes = [line for note in self.notes for line in textwrap.wrap(note, WIDTH)]
        return "\n".join([*textwrap.wrap(self.caption, WIDTH), "", *lines, "", *notes])


@dataclass(frozen=True)
class Details:
    """Blocks for those who ask for them, folded until then."""

    summary: str
    blocks: tuple[Block, ...]

    def markdown(self) -> str:
        summary = f"<summary>{html.escape(self.summary)}</summary>"
        return f"<details>{summary}\n\n{markdown_document(self.blocks)}\n</details>"


def markdown_document(blocks: Sequence[Block]) -> str:
    """The blocks as one Markdown text."""
    return "\n\n".join(block.markdown() for block in blocks) + "\n"


def html_document(title: str, blocks: Sequence[Block]) -> str:
    """The blocks as one self-contained page that works from a file, without a network or script.

    Headings of level 2 are linked from the top.
    """
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    # The browser itself refuses whatever is not in the page, and any script.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    # HTML is let through, for details; that of texts was escaped.
    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    reader.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0"><table>\n')
    reader.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = reader.parse(markdown_document([_inlined(block) for block in blocks]))
    links = ""
    for number, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            token.attrSet("id", f"part-{number}")
            text = reader.renderer.render(tokens[number + 1 : number + 2], reader.options, {})
            links += f'<li><a href="#part-{number}">{text}</a></li>'
    contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n' if links else ""
    body = reader.renderer.render(tokens, reader.options, {})
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<main>\n{contents}{body}</main>\n</body>\n</html>\n"
    )


def _inlined(block: Block) -> Block:
    """A picture with its bytes in the place of its path; any other block as it is."""
    if not isinstance(block, Picture):
        return block
    data = base64.b64encode(block.png).decode("ascii")
    return replace(block, path=f"data:image/png;base64,{data}")


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape_markdown(cell).replace("|", "\\|") for cell in cells) + " |"


def escape_markdown(text: str) -> str:
    """Characters that Markdown would take for markup; an underscore inside a word is safe."""
    text = re.sub(r"([\\`*<\[\]&])", r"\\\1", text.replace("\n", " "))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def _prose(text: str) -> str:
    """Running text, of which Markdown must not take the first sign for a bullet or a heading."""
    return re.sub(r"^(\d*)([-+#>.)])", r"\1\\\2", escape_markdown(text.strip()))
