"""What Sphinx calls while it builds the book: contents, the reference's list, anchors as Jupyter has them, folds."""

import re
from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform

from ... import __all__ as PUBLIC
from .sources import NEEDS_PYTHON, NOTEBOOKS

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
REFERENCE = "reference/"  # it is English in every language, and made once


def translated(app) -> bool:
    return app.config.language != "en"


def read_english_reference(app, config) -> None:
    """Names on a translated page lead to the English book, in whose folder the translated one stands."""
    if translated(app):
        config.intersphinx_mapping = {"english": ("..", str(Path(app.outdir).parent / "objects.inv"))}


def add_to_source(app, name: str, source: list[str]) -> None:
    if translated(app) and name.startswith(REFERENCE):
        source[0] = source[0].partition("\n")[0]  # the heading, for the table of contents
    elif name in ADDED:
        source[0] += ADDED[name]()


def keep_slugs(app, document) -> None:
    """MyST takes a translated title for a page of its own, and its anchor for all that this page has."""
    app.env.metadata[app.env.docname]["myst_slugs"] = getattr(document, "myst_slugs", {})


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


EXERCISE = "The task, code to change, a solution"
CHECKED = "What is checked here"
VERDICT = "What check says of this code, with a hint"
# What the book itself says on its pages, in other languages.
SAID = {
    "zh_CN": {
        EXERCISE: "题目、待修改的代码与参考解答",
        CHECKED: "此处检查的内容",
        VERDICT: "check 对这段代码的判断与提示",
        "Answer": "答案",
        "Solution": "参考解答",
        "The lab": "实验室",
        NEEDS_PYTHON: "此处是控件，需要 Python：它在 JupyterLab 中运行（<code>make lab</code>）。以下为其最后的状态。",
    }
}


class Folds(SphinxTransform):
    """An exercise, from below its heading to its solution, is one fold, and what `check` says is a fold in it."""

    default_priority = 11

    def apply(self):
        said = SAID.get(self.config.language, {})
        for cell in self.document.findall(lambda node: "prompt_show" in getattr(node, "attributes", ())):
            prompt = VERDICT if "tag_exercise" in cell["classes"] else CHECKED
            cell["prompt_show"] = cell["prompt_hide"] = said.get(prompt, prompt)
        for section in list(self.document.findall(nodes.section)):
            if section[0].astext().startswith("Exercise: "):
                end = end_of_exercise(section)
                title = nodes.title("", said.get(EXERCISE, EXERCISE))
                fold = nodes.admonition("", title, *section[1:end], classes=["exercise"], collapsible="closed")
                section[1:end] = [fold]
        for raw in self.document.findall(nodes.raw):
            text = re.sub(r'(?<=[>"])([^<>"]+)', lambda match: said.get(match[1], match[1]), raw.astext())
            raw[:] = [nodes.Text(text.replace(NEEDS_PYTHON, said.get(NEEDS_PYTHON, NEEDS_PYTHON)))]


def end_of_exercise(section: nodes.section) -> int:
    """Behind its solution, which is code, or a fold on the page; else the section's end."""
    folded = False
    for place, child in enumerate(section):
        folded |= isinstance(child, nodes.raw) and "<summary>Solution" in child.astext()
        if child.astext().startswith("solution(") or (folded and "</details>" in child.astext()):
            return place + 1
    return len(section)


def name_levels(app, page, template, context, doctree) -> None:
    """Headings of the sidebar say their level, which a screen reader asks for."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def write_moved(app, error) -> None:
    if error or app.builder.format != "html":
        return
    moved = {old: f"{new}.html" for old, new in OLD_NAMES.items()}
    if translated(app):
        english = [name for name in app.env.found_docs if name.startswith(REFERENCE)]
        moved |= {name: f"../../{name}.html" for name in english} | {"py-modindex": "../py-modindex.html"}
    for old, new in moved.items():
        (Path(app.outdir) / f"{old}.html").write_text(MOVED.format(new), encoding="utf-8")


def setup(app) -> dict:
    app.connect("config-inited", read_english_reference)
    app.connect("source-read", add_to_source)
    app.connect("doctree-read", keep_slugs)
    app.connect("autodoc-skip-member", skip_public)
    app.connect("html-page-context", name_levels, priority=900)  # after the theme
    app.connect("build-finished", write_moved)
    app.add_transform(JupyterAnchors)
    app.add_transform(Folds)
    return {"parallel_read_safe": True}
