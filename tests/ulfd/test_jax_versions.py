"""The table of versions that work together is read correctly."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from ulfd.kernels import jax_versions, registry

NEWER = {"python": "3.12.1", "jax": "0.12.0.1", "jaxlib": "0.12.0.1"}
GOOD = {
    "python": "3.11.7",
    "jax": "0.10.2",
    "jaxlib": "0.10.2",
    "jax-triton": "0.3.1",
    "triton": "3.9.0+git1",
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"jax": "0.10.10.dev3"}, None),
        (NEWER | {"jax-triton": "0.4.1"}, None),
        (NEWER, r"or jax-triton 0\.3\.1 \(needs >= 0\.4, < 0\.5\)"),
        (
            {"jax": "0.11.0", "jaxlib": "0.11.0"},
            r"jax 0\.11\.0 \(needs >= 0\.10, < 0\.11\), jaxlib",
        ),
        ({"jax-triton": "0.4.0"}, r"jax-triton 0\.4\.0"),
        ({"triton": "3.5.1"}, r"triton 3\.5\.1 \(needs >= 3\.6\)"),
    ],
)
def test_mismatch(changes, reason):
    found = jax_versions.mismatch(GOOD | changes)
    assert (found is None) if reason is None else re.search(reason, found)


def test_a_missing_package_is_named_with_its_cure(monkeypatch):
    def version(name):
        if name == "jax-triton":
            raise importlib.metadata.PackageNotFoundError
        return GOOD[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    jax_versions.unavailable.cache_clear()
    problem = registry.Problem("jax", "cuda", ("float32", "float32"), (2, 3), None)
    with pytest.raises(
        ValueError, match=r"jax-triton is not installed: pip install 'ulfd\[jax-gpu"
    ):
        registry.select(problem, "triton")
    monkeypatch.undo()
    jax_versions.unavailable.cache_clear()


def test_the_documentation_shows_the_table():
    readme = Path(__file__).parents[2] / "ulfd_jax" / "README.md"
    assert jax_versions.table() in readme.read_text(encoding="utf-8")
