"""Blocks that hold other blocks: the structure of a long report."""

from __future__ import annotations

import html
from dataclasses import dataclass

from reference_training.reporting.blocks import Block, escape_markdown, markdown_document


@dataclass(frozen=True)
class Section:
    """Blocks that belong together, and what a link to them says."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]

    def markdown(self) -> str:
        return markdown_document(self.blocks).strip()

    def html(self) -> str:
        body = "\n".join(block.html() for block in self.blocks)
        return f'<section id="{self.anchor}">\n{body}\n</section>'


@dataclass(frozen=True)
class Contents:
    """Links to the sections of a long page."""

    sections: tuple[Section, ...]

    def markdown(self) -> str:
        return ""  # GitHub has its own

    def html(self) -> str:
        links = "".join(
            f'<li><a href="#{section.anchor}">{html.escape(section.title)}</a></li>'
            for section in self.sections
        )
        return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


@dataclass(frozen=True)
class Details:
    """Blocks for those who ask for them: folded in HTML, in full elsewhere."""

    summary: str
    blocks: tuple[Block, ...]

    def markdown(self) -> str:
        return f"**{escape_markdown(self.summary)}**\n\n{markdown_document(self.blocks).strip()}"

    def html(self) -> str:
        body = "\n".join(block.html() for block in self.blocks)
        return f"<details><summary>{html.escape(self.summary)}</summary>\n{body}\n</details>"
