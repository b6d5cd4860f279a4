"""What Sphinx calls while it builds the book: tables of contents, the reference's list, anchors as Jupyter has them."""

from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform

from ... import __all__ as PUBLIC
from .sources import NOTEBOOKS

GUIDE = (
    "install",
    "checkpoints",
    "command-line",
    "runtime",
    "precision",
    "serving",
    "in-your-program",
    "costs",
    "other-models",
    "glossary",
)
# Pages that had another name: where a link from elsewhere leads now.
OLD_NAMES = {
    "07_lab": "00_hear_it",
    "01_inspect_dims": "02_inspect_dims",
    "02_verify_wrapper": "03_verify_wrapper",
    "03_export_onnx": "04_export_onnx",
    "04_verify_onnxruntime": "05_verify_onnxruntime",
    "05_exact_streaming": "03_verify_wrapper",
    "06_pitfalls": "07_trap_catalogue",
    "11_your_turn": "12_capstones",
    "12_another_codec": "11_another_codec",
}
MOVED = """<!doctype html><meta charset="utf-8"><title>Moved</title><link rel="canonical" href="{0}">
<script>location.replace("{0}" + location.hash)</script>
<meta http-equiv="refresh" content="1; url={0}"><p>This page is now <a href="{0}">{0}</a>.</p>
"""


def contents() -> str:
    """The table of contents; as a part of the start page it would show as code where that is read as plain Markdown."""
    parts = {
        "The course": sorted(path.stem for path in NOTEBOOKS.glob("[0-9]*.ipynb")),
        "The guide": [f"guide/{name}" for name in GUIDE],
        "Reference": ["reference/public", "reference/core"],
        "The project": [
            "project/readme",
            "project/demo",
            "card_demo",
            "card_random",
            "project/contributing",
            "project/changelog",
        ],
    }
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(names) + "\n```\n"
        for title, names in parts.items()
    )


def public_names() -> str:
    """Each public name with its own docstring."""
    kinds = [f".. auto{'class' if name[0].isupper() else 'function'}:: qwen3_codec.{name}" for name in PUBLIC]
    return "\n```{eval-rst}\n" + "\n".join(kinds) + "\n```\n"


ADDED = {"index": contents, "reference/public": public_names}


def add_to_source(app, name: str, source: list[str]) -> None:
    if name in ADDED:
        source[0] += ADDED[name]()


def skip_public(app, what, name, obj, skip, options) -> bool | None:
    """Public names are described once, on their own page."""
    import qwen3_codec

    return True if any(obj is getattr(qwen3_codec, each) for each in PUBLIC) else None


class JupyterAnchors(SphinxTransform):
    """Headings keep, beside Sphinx's anchors, those that Jupyter gives them: their words with hyphens."""

    default_priority = 10  # before titles are translated

    def apply(self):
        for section in self.document.findall(nodes.section):
            name = section[0].astext().replace(" ", "-")
            if name not in section["ids"]:
                section["ids"].append(name)


def name_levels(app, page, template, context, doctree) -> None:
    """Headings of the sidebar say their level, which a screen reader asks for."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def write_old_names(app, error) -> None:
    if not error and app.builder.format == "html":
        for old, new in OLD_NAMES.items():
            (Path(app.outdir) / f"{old}.html").write_text(MOVED.format(f"{new}.html"), encoding="utf-8")


def setup(app) -> dict:
    app.connect("source-read", add_to_source)
    app.connect("autodoc-skip-member", skip_public)
    app.connect("html-page-context", name_levels, priority=900)  # after the theme
    app.connect("build-finished", write_old_names)
    app.add_transform(JupyterAnchors)
    return {"parallel_read_safe": True}
