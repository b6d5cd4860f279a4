"""The book: how Sphinx puts the pages together. `make book` runs it on what `qwen3_codec.course.book` prepares."""

from qwen3_codec import __version__

project = "qwen3_codec"
project_copyright = "the qwen3_codec developers, Apache-2.0"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "qwen3_codec.course.book.hooks",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

# Outputs are taken as they are: a page shows what its own execution gave.
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables and links in outputs
nb_ipywidgets_js = {}  # what would draw widgets comes from another server
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

html_theme = "furo"
pygments_dark_style = "github-dark"  # no underlined names
html_title = "Streaming codecs outside PyTorch"
html_search_language = "en"  # in every language: the Chinese search asks for a stemmer that is not there
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
templates_path = ["_templates"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_theme_options = {"top_of_page_buttons": ["view"]}  # `_templates` makes it the language's
html_copy_source = False
html_show_sphinx = False
html_show_sourcelink = False

locale_dirs = ["locale"]
gettext_compact = False
gettext_location = False  # a message is its words, wherever they stand

default_role = "code"  # a name in a docstring
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_typehints_format = "short"
nitpicky = True
# Types of other packages are documented on other servers, and the book fetches nothing.
nitpick_ignore_regex = [(r"py:.*", r"(?!qwen3_codec).*|.*\.T")]  # and a type variable
