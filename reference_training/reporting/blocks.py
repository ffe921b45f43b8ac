"""What a report consists of, and its three renderings: Markdown, one HTML file, a terminal.

A report is a sequence of blocks, written once as data. To add a kind of block, write a frozen
dataclass with the methods `markdown` and `html`; nothing else knows the kinds.
"""

from __future__ import annotations

import base64
import html
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ABSENT = "–"
ASSETS = Path(__file__).parent


class Block(Protocol):
    """One piece of a report."""

    def markdown(self) -> str:
        """The block as GitHub-flavoured Markdown, without blank lines around it."""
        ...

    def html(self) -> str:
        """The block as escaped HTML that loads nothing from anywhere."""
        ...


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the report's title."""

    text: str
    level: int = 2

    def markdown(self) -> str:
        return f"{'#' * self.level} {escape_markdown(self.text)}"

    def html(self) -> str:
        return f"<h{self.level}>{html.escape(self.text)}</h{self.level}>"


@dataclass(frozen=True)
class Paragraph:
    """Running text; `callout` sets it apart, for the one thing a reader must not miss."""

    text: str
    callout: bool = False

    def markdown(self) -> str:
        return f"> **{escape_markdown(self.text)}**" if self.callout else _prose(self.text)

    def html(self) -> str:
        attributes = ' class="callout"' if self.callout else ""
        return f"<p{attributes}>{html.escape(self.text)}</p>"

    def terminal(self) -> str:
        """The text, wrapped."""
        return textwrap.fill(self.text, 98)


@dataclass(frozen=True)
class Code:
    """Lines for a shell."""

    text: str

    def markdown(self) -> str:
        return f"```sh\n{self.text}\n```"

    def html(self) -> str:
        return f"<pre><code>{html.escape(self.text)}</code></pre>"


@dataclass(frozen=True)
class Picture:
    """A figure: a PNG file beside the Markdown, and both themes' bytes inlined in the HTML."""

    path: str
    caption: str
    light: bytes
    dark: bytes

    def markdown(self) -> str:
        caption = escape_markdown(self.caption)
        return f"![{caption}]({self.path})\n\n*{caption}*"

    def html(self) -> str:
        caption = html.escape(self.caption)
        return (
            f'<figure><div class="scroll" role="region" tabindex="0" aria-label="{caption}">'
            '<picture><source media="(prefers-color-scheme: dark)" '
            f'srcset="{_data_uri(self.dark)}">'
            f'<img src="{_data_uri(self.light)}" alt="{caption}"></picture></div>'
            f"<figcaption>{caption}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Table:
    """Cells as text: the first column names the row, the others hold its values.

    `aside` counts the trailing columns that hold somebody else's numbers, which HTML sets apart.
    `words` counts the leading columns that are words, to be aligned left. `shades` makes a heat
    map: for each row 0 (low) to 1 (high) of every cell after the words. `narrow` writes the headers
    of numbers upright.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    notes: tuple[str, ...] = ()
    aside: int = 0
    words: int = 1
    shades: tuple[tuple[float, ...], ...] = ()
    narrow: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(
                    f"Table: the row {row} has {len(row)} cells under {len(self.header)} headers."
                )

    def markdown(self) -> str:
        align = " --- |" * self.words + " ---: |" * (len(self.header) - self.words)
        lines = [_markdown_row(self.header), f"|{align}"]
        lines += [_markdown_row(row) for row in self.rows]
        paragraphs = [f"**{escape_markdown(self.caption)}**", "\n".join(lines)]
        return "\n\n".join(paragraphs + [_prose(note) for note in self.notes])

    def html(self) -> str:
        words = "words" if self.words == len(self.header) else "numbers"
        kind = "narrow" if self.narrow else words
        head = self._html_row(self.header, "th", ())
        shades = self.shades or ((),) * len(self.rows)
        body = "\n".join(map(self._html_row, self.rows, ["td"] * len(self.rows), shades))
        notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in self.notes)
        # The caption stands outside of what scrolls; a region that scrolls can be focused.
        caption = html.escape(self.caption)
        return (
            f'<p class="caption">{caption}</p>\n<div class="scroll" role="region" tabindex="0" '
            f'aria-label="{caption}"><table class="{kind}">\n'
            f"<thead>{head}</thead>\n<tbody>{body}</tbody></table></div>{notes}"
        )

    def terminal(self) -> str:
        """The table in plain text, its headers wrapped to the columns' width."""
        widths = [
            max([9, *map(len, title.split()), *map(len, cells)])
            for title, *cells in zip(self.header, *self.rows, strict=True)
        ]
        wrapped = [
            textwrap.wrap(title, width) or [""]
            for title, width in zip(self.header, widths, strict=True)
        ]
        height = max(map(len, wrapped))
        # Headers hang from below, so that their last line stands over the numbers.
        padded = [[""] * (height - len(lines)) + lines for lines in wrapped]
        lines = [self._terminal_row(line, widths) for line in zip(*padded, strict=True)]
        lines.append("─" * len(lines[-1]))
        lines += [self._terminal_row(row, widths) for row in self.rows]
        notes = [line for note in self.notes for line in textwrap.wrap(note, 98)]
        return "\n".join([*textwrap.wrap(self.caption, 98), "", *lines, "", *notes])

    def _html_row(self, cells: Sequence[str], tag: str, shades: Sequence[float]) -> str:
        first_aside = len(cells) - self.aside
        parts = []
        for index, cell in enumerate(cells):
            name, attributes = tag, ' scope="col"' if tag == "th" else ""
            text = html.escape(cell).replace(" ↑", "&nbsp;↑").replace(" ↓", "&nbsp;↓")
            if index == 0 and tag == "td":
                name, attributes, text = "th", ' scope="row"', f"<span>{text}</span>"
            elif 0 < index < self.words:
                attributes += ' class="word"'
            if index >= first_aside:
                attributes += ' class="aside"'
            if shades and index >= self.words:
                attributes += f' style="--shade:{shades[index - self.words]:.2f}"'
            parts.append(f"<{name}{attributes}>{text}</{name}>")
        return f"<tr>{''.join(parts)}</tr>"

    def _terminal_row(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        left = map(str.ljust, cells[: self.words], widths)
        return "  ".join([*left, *map(str.rjust, cells[self.words :], widths[self.words :])])


@dataclass(frozen=True)
class Section:
    """Blocks that belong together, and what a link to them says; of a page of several."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]

    def markdown(self) -> str:
        return markdown_document(self.blocks).strip()

    def html(self) -> str:
        return f'<section id="{self.anchor}">\n{_html(self.blocks)}\n</section>'


@dataclass(frozen=True)
class Details:
    """Blocks for those who ask for them: folded in HTML, in full elsewhere."""

    summary: str
    blocks: tuple[Block, ...]

    def markdown(self) -> str:
        return f"**{escape_markdown(self.summary)}**\n\n{markdown_document(self.blocks).strip()}"

    def html(self) -> str:
        summary = f"<summary>{html.escape(self.summary)}</summary>"
        return f"<details>{summary}\n{_html(self.blocks)}\n</details>"


def markdown_document(blocks: Sequence[Block]) -> str:
    """The blocks as one Markdown text."""
    return "\n\n".join(block.markdown() for block in blocks) + "\n"


def html_document(title: str, blocks: Sequence[Block]) -> str:
    """The blocks as one self-contained page that works from a file, without a network or script.

    Sections are linked from the top.
    """
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    # The browser itself refuses whatever is not in the page, and any script.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    links = "".join(
        f'<li><a href="#{block.anchor}">{html.escape(block.title)}</a></li>'
        for block in blocks
        if isinstance(block, Section)
    )
    contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n' if links else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<main>\n{contents}{_html(blocks)}\n</main>\n</body>\n</html>\n"
    )


def _html(blocks: Sequence[Block]) -> str:
    return "\n".join(block.html() for block in blocks)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape_markdown(cell).replace("|", "\\|") for cell in cells) + " |"


def escape_markdown(text: str) -> str:
    """Characters that Markdown would take for markup; an underscore inside a word is safe."""
    text = re.sub(r"([\\`*<\[\]])", r"\\\1", text.replace("\n", " "))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def _prose(text: str) -> str:
    """Running text, of which Markdown must not take the first sign for a bullet or a heading."""
    return re.sub(r"^([-+#>])", r"\\\1", escape_markdown(text))


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
