"""Google's sections (Args:, Returns:, Raises:) in docstrings, by napoleon's own parser.

The extension `sphinx.ext.napoleon` would also read "Whose feature is z: self or frozen." behind an
attribute as a type and its description; here an attribute's docstring is prose.
"""

from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

PROSE = ("attribute", "data", "property", "module")


def _sections(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    if what not in PROSE:
        config = Config(napoleon_use_rtype=False)
        lines[:] = GoogleDocstring(lines, config, app, what, name, thing, options).lines()


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the reader."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _sections)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
