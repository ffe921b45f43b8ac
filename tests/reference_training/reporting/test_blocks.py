"""Blocks: what they escape, and what they refuse."""

import re

import pytest

from reference_training.reporting import blocks, figures
from reference_training.reporting.blocks import Paragraph, Table, html_document, markdown_document


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
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    for theme, rules in ((figures.LIGHT, light), (figures.DARK, dark)):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", rules))
        ours = (theme.page, theme.ink, theme.grid)
        assert tuple(colours[name] for name in ("paper", "ink", "line")) == ours
