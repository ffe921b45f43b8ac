"""Google's sections (Args:, Returns:, Raises:) in docstrings, by napoleon's own parser.

The extension `sphinx.ext.napoleon` would read "Whose feature is z: self or frozen." behind an
attribute, and "a scalar for the mean: float32" below Returns, as a type and its description; here
both are prose.
"""

from dataclasses import is_dataclass
from typing import Any, get_type_hints

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

from reference_training.config import Recipe
from reference_training.evaluate import Evaluation

PROSE = ("attribute", "data", "property", "module")


class Docstring(GoogleDocstring):
    """A docstring in Google's style whose Returns has no type of its own."""

    def _consume_returns_section(
        self, preprocess_types: bool = False
    ) -> list[tuple[str, str, list[str]]]:
        lines = self._dedent(self._consume_to_next_section())
        return [("", "", lines)] if lines else []


def _sections(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    if what not in PROSE:
        config = Config(napoleon_use_rtype=False)
        lines[:] = Docstring(lines, config, app, what, name, thing, options).lines()


def _signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, *given: str | None
) -> tuple[str | None, ...]:
    """Nothing for a dataclass whose fields are listed below it."""
    return ("", None) if is_dataclass(thing) and options.undoc_members else given


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the reader."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _sections)
    app.connect("autodoc-process-signature", _signature)
    for options in (Recipe, Evaluation):  # without what only the command line needs to know
        options.__annotations__ = get_type_hints(options)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
