"""Blocks: what they escape, and what they refuse."""

import html
import re

import pytest

from reference_training.reporting import blocks, figures
from reference_training.reporting.blocks import (
    Code,
    Details,
    Heading,
    Paragraph,
    Table,
    html_document,
    markdown_document,
)


def test_blocks_escape_their_text():
    blocks = [Paragraph("+ a <i> *b* `c`"), Table(("x", "y|z"), (("a_b", "<script>"),), "t")]
    text = markdown_document(blocks)
    assert text.startswith("\\+ a \\<i> \\*b\\* \\`c\\`")
    assert "| x | y\\|z |" in text
    assert "| a_b | \\<script> |" in text
    page = html_document("<t>", blocks)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<i>" not in page
    assert "<title>&lt;t&gt;</title>" in page


def test_a_row_that_does_not_fit_its_header_is_refused():
    with pytest.raises(ValueError, match="2 cells under 1"):
        Table(("a",), (("1", "2"),), "t")


def test_the_page_has_the_colours_of_the_figures():
    style = (blocks.ASSETS / "page.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", style[: style.index("@media")]))
    ours = (figures.PAGE, figures.INK, figures.GRID)
    assert tuple(colours[name] for name in ("paper", "ink", "line")) == ours


@pytest.mark.parametrize(
    "text", ["12. a", "+ a", "# a", "a & b &amp; c", "<b>x</b>", "`c` *d* _e_"]
)
def test_the_page_says_what_the_text_says(text):
    """Of Markdown and HTML nothing is taken for markup, wherever the text stands."""
    parts = [Paragraph(text), Details(text, (Table((text, "b"), ((text, "c|d"),), text),))]
    parts += [Code(f"{text}\n```\n{text}"), Heading(text)]
    page = html_document(text, parts)
    written = html.escape(text)
    assert page.count(written) == 10  # title, link, and eight in the blocks
    body = page[page.index("<main>") :]
    assert set(re.findall(r"<(\w+)", body)) == set(
        "main nav ul li a p details summary strong div table thead tbody tr th td pre code h2"
        "".split()
    )
    assert ">c|d</td>" in body
