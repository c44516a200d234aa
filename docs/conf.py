"""The site. `make docs` builds it to out/docs, without network access."""

import os
import sys
from pathlib import Path

import seedbed

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent / "examples" / "gallery")]

os.environ.setdefault("KERAS_BACKEND", "jax")  # for seedbed.keras; the default of Keras would have to be installed

project = "Seedbed"
copyright = "the authors of Seedbed; Apache-2.0"  # noqa: A001 - Sphinx's name
version = release = seedbed.__version__

extensions = [
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "contract",
    "references",
]
exclude_patterns = ["_ext"]
default_role = "py:obj"  # for single backticks in docstrings
smartquotes = False  # they would merge the two dashes of an option
nitpicky = True
nitpick_ignore_regex = [
    # Names of other packages, whose inventories would have to be downloaded.
    (r"py:.*", r"(numpy|np|npt|torch|jax|keras|grpc|google|collections|os|types|typing)\..*"),
    (r"py:.*", r"(SupportsIndex|Callable|Iterable|Sequence|Mapping|AsyncGenerator|Generator|Coroutine|Any|R)"),
    (r"py:.*", r"(pathlib\.Path|CupyArray|close)"),
    (r"py:.*", r"seedbed\._.*|seedbed_server\..*|InitServicer|Metrics|Traces|Balance|Settings|engine\.Backend"),
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True

myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 4

plot_formats = ["svg"]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_include_source = True

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_theme = "furo"
html_title = f"Seedbed {version}"
html_static_path = ["_static"]
html_css_files = ["seedbed.css"]
html_copy_source = False
html_show_sphinx = False
