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
from typing import Protocol


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
        return f"{'#' * self.level} {_escape_markdown(self.text)}"

    def html(self) -> str:
        return f"<h{self.level}>{html.escape(self.text)}</h{self.level}>"


@dataclass(frozen=True)
class Paragraph:
    """Running text; `callout` sets it apart, for the one thing a reader must not miss."""

    text: str
    callout: bool = False

    def markdown(self) -> str:
        return f"> **{_escape_markdown(self.text)}**" if self.callout else _prose(self.text)

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
        caption = _escape_markdown(self.caption)
        return f"![{caption}]({self.path})\n\n*{caption}*"

    def html(self) -> str:
        caption = html.escape(self.caption)
        return (
            '<figure><picture><source media="(prefers-color-scheme: dark)" '
            f'srcset="{_data_uri(self.dark)}">'
            f'<img src="{_data_uri(self.light)}" alt="{caption}"></picture>'
            f"<figcaption>{caption}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Table:
    """Cells as text: the first column names the row, the others hold its values.

    `aside` counts the trailing columns that hold somebody else's numbers, which HTML sets apart.
    `text` says that the values are words, to be aligned left.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    notes: tuple[str, ...] = ()
    aside: int = 0
    text: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(
                    f"Table: the row {row} has {len(row)} cells under {len(self.header)} headers."
                )

    def markdown(self) -> str:
        align = " --- |" if self.text else " ---: |"
        lines = [_markdown_row(self.header), "| --- |" + align * (len(self.header) - 1)]
        lines += [_markdown_row(row) for row in self.rows]
        paragraphs = [f"**{_escape_markdown(self.caption)}**", "\n".join(lines)]
        return "\n\n".join(paragraphs + [_prose(note) for note in self.notes])

    def html(self) -> str:
        kind = ' class="text"' if self.text else ""
        head = self._html_row(self.header, "th", 'scope="col"')
        body = "\n".join(self._html_row(row, "td", "") for row in self.rows)
        notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in self.notes)
        return (
            f'<div class="scroll"><table{kind}><caption>{html.escape(self.caption)}</caption>\n'
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

    def _html_row(self, cells: Sequence[str], tag: str, attributes: str) -> str:
        first_aside = len(cells) - self.aside
        parts = []
        for index, cell in enumerate(cells):
            name = "th" if index == 0 else tag
            scope = 'scope="row"' if index == 0 and tag == "td" else attributes
            mark = ' class="aside"' if index >= first_aside else ""
            text = html.escape(cell).replace(" ↑", "&nbsp;↑").replace(" ↓", "&nbsp;↓")
            parts.append(f"<{f'{name} {scope}'.strip()}{mark}>{text}</{name}>")
        return f"<tr>{''.join(parts)}</tr>"

    def _terminal_row(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        justify = str.ljust if self.text else str.rjust
        rest = map(justify, cells[1:], widths[1:])
        return "  ".join([cells[0].ljust(widths[0]), *rest])


def markdown_document(blocks: Sequence[Block]) -> str:
    """The blocks as one Markdown text."""
    return "\n\n".join(block.markdown() for block in blocks) + "\n"


def html_document(title: str, blocks: Sequence[Block]) -> str:
    """The blocks as one self-contained page: no script, and nothing to load."""
    body = "\n".join(block.html() for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escape_markdown(cell).replace("|", "\\|") for cell in cells) + " |"


def _escape_markdown(text: str) -> str:
    """Characters that Markdown would take for markup; an underscore inside a word is safe."""
    text = re.sub(r"([\\`*<\[\]])", r"\\\1", text.replace("\n", " "))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def _prose(text: str) -> str:
    """Running text, of which Markdown must not take the first sign for a bullet or a heading."""
    return re.sub(r"^([-+#>])", r"\\\1", _escape_markdown(text))


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --muted: #5c6570; --line: #d9dee3;
  --paper: #ffffff; --tint: #f4f6f8; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --muted: #9aa5b1;
  --line: #353c44; --paper: #14171a; --tint: #1d2126; --accent: #56b4e9; } }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
p { max-width: 44rem; margin: .75rem 0; overflow-wrap: anywhere; }
.callout { border-left: 4px solid var(--accent); background: var(--tint); font-weight: 600;
  padding: .75rem 1rem; border-radius: 0 4px 4px 0; margin: 1.5rem 0; }
.note { color: var(--muted); font-size: .85rem; margin: .35rem 0; }
.scroll { overflow-x: auto; margin: 1.5rem 0 .5rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .5rem; }
th, td { padding: .35rem .8rem; text-align: right; vertical-align: top; white-space: nowrap; }
thead th { white-space: normal; vertical-align: bottom; border-bottom: 2px solid var(--line);
  font-weight: 600; min-width: 4.5rem; text-wrap: balance; }
tbody th { font-weight: 500; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody tr:hover { background: var(--tint); }
th:first-child, .text th, .text td { text-align: left; }
th:first-child { padding-left: 0; }
.text td { white-space: normal; overflow-wrap: anywhere; }
.aside { color: var(--muted); background: var(--tint); font-weight: 400; }
pre { background: var(--tint); padding: .9rem 1rem; border-radius: 4px; overflow-x: auto;
  font: .85rem/1.5 ui-monospace, Consolas, "Liberation Mono", monospace; }
figure { margin: 1.5rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--muted); font-size: .9rem; margin-top: .5rem; max-width: 44rem; }
@media print { main { max-width: none; padding: 0; } h2 { break-after: avoid; } }
"""
