"""Every code block of the documentation and the README runs, page by page, from top to bottom."""

import contextlib
import doctest
import io

import pytest
import torch

from tests.docs.pages import NAMES, blocks

RUN = ("python", "pycon")
SHOWN = {"", "bash", "text", "{eval-rst}"}
"""Languages of what is no Python: commands (test_commands.py), drawings, directives."""
GIVEN = {
    "README.md": lambda: dict(
        zip(("student", "teacher", "log_variance"), torch.rand(3, 2, 4, 5, 5), strict=True)
    )
}
"""The names that a page speaks of as the reader's own."""


def _run_doctest(text: str, names: dict, where: str) -> None:
    example = doctest.DocTestParser().get_doctest(text, names, where, None, 0)
    example.globs = names  # the page's own, so that later blocks see what this one defines
    report = io.StringIO()
    failed, tried = doctest.DocTestRunner(verbose=False).run(
        example, out=report.write, clear_globs=False
    )
    assert tried, f"{where} holds no example"
    assert not failed, report.getvalue()


@pytest.mark.parametrize("name", [name for name in NAMES if any(b[0] in RUN for b in blocks(name))])
def test_the_code_of_a_page_runs(name):
    names = {"__name__": "page", **GIVEN.get(name, dict)()}
    torch.manual_seed(0)
    for block in blocks(name):
        where = f"{name}:{block.line}"
        if block.language == "python":
            # The line numbers of a traceback are then those of the page.
            code = compile("\n" * (block.line - 1) + block.text, where, "exec")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, names)
        elif block.language == "pycon":
            _run_doctest(block.text, names, where)


def test_no_block_is_of_a_language_that_nobody_runs():
    found = {block.language for name in NAMES for block in blocks(name)}
    assert found <= {*RUN, *SHOWN}


def test_a_wrong_block_fails():
    with pytest.raises(AssertionError, match="Expected"):
        _run_doctest(">>> 1 + 1\n3\n", {}, "nowhere")
