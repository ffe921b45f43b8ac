"""The documentation names what there is: every public name, every file of the code map."""

import re
from importlib import import_module

import pytest

from tests.docs.pages import NAMES, ROOT


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["ulfd", "ulfd_torch", "ulfd_jax"])
def test_every_public_name_is_in_the_reference(package):
    page = _text(f"docs/api/{package}.md")
    for name in import_module(package).__all__:
        assert f" {package}.{name}\n" in page, name


def test_every_path_that_a_page_names_is_there():
    pattern = r"`((?:ulfd|ulfd_torch|ulfd_jax|reference_training|benchmarks|tests|docs)/[\w./]*)`"
    for page in NAMES:
        for path in re.findall(pattern, _text(page)):
            assert (ROOT / path).exists(), f"{page} names {path}"


def test_every_page_is_in_the_contents():
    contents = _text("docs/index.md")
    for page in NAMES:
        name = page.removeprefix("docs/").removesuffix(".md")
        assert page in ("README.md", "docs/index.md") or f"\n{name}\n" in contents, page
