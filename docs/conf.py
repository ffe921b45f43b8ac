"""The documentation: `make docs`.

Sphinx reads the docstrings, MyST the Markdown and runs the notebook, furo draws it.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).with_name("extensions"))]

import ulfd  # noqa: E402  (from here, whether it is installed or not)

project = "ulfd"
author = "the ulfd developers"
version = release = ulfd.__version__
copyright = "the ulfd developers, Apache-2.0"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "docstrings",
    "mathml",
    "repository",
]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_execution_timeout = 1200  # seconds for a cell, on a busy machine
nb_render_image_options = {"alt": "what the cell above draws"}
html_math_renderer = "mathml"

# A name in single backticks is linked where there is something of that name.
default_role = "py:obj"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"ulfd {version}"
html_static_path = ["_static"]
html_css_files = ["ulfd.css"]
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#8a4b00", "color-brand-content": "#8a4b00"},
    "dark_css_variables": {"color-brand-primary": "#f0a04b", "color-brand-content": "#f0a04b"},
}
pygments_style = "default"
pygments_dark_style = "github-dark"
