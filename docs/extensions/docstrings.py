"""Google's sections (Args:, Returns:, Raises:) in docstrings, by napoleon's own parser.

The extension `sphinx.ext.napoleon` would also read "Whose feature is z: self or frozen." behind an
attribute as a type and its description; here an attribute's docstring is prose.
"""

from dataclasses import is_dataclass
from typing import Any, get_type_hints

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

from reference_training.config import Recipe
from reference_training.evaluate import Evaluation

PROSE = ("attribute", "data", "property", "module")


def _sections(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    if what not in PROSE:
        config = Config(napoleon_use_rtype=False)
        lines[:] = GoogleDocstring(lines, config, app, what, name, thing, options).lines()


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
