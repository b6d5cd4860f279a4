"""The book's sources: the pages as they were executed, the guide and the reference, as Sphinx takes them.

    python -m qwen3_codec.course.book --pages build/walkthrough --output build/book_source
"""

import argparse
import json
import re
import shutil
from pathlib import Path

from ..files import CHECKOUT, folder_written_whole

NOTEBOOKS = CHECKOUT / "notebooks"
GUIDE = ("install", "checkpoints", "command-line", "runtime", "precision", "serving", "costs", "other-models", "glossary")
NEEDS_PYTHON = "Here is a widget. It needs Python: it runs in JupyterLab (<code>make lab</code>), not on this page."
# How a page's call-outs look in the book.
LOOKS = {"Trap": "warning", "Why": "note", "Try it": "tip", "Predict": "hint"}


def contents() -> str:
    """The book's table of contents, as Sphinx reads it."""
    pages = sorted(path.stem for path in NOTEBOOKS.glob("[0-9]*.ipynb"))
    parts = {
        "The course": pages,
        "The guide": [f"guide/{name}" for name in GUIDE],
        "Reference": ["reference/public", "reference/core"],
    }
    return "\n".join(f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(names) + "\n```\n" for title, names in parts.items())


CONTENTS = contents()


def anchor(heading: str) -> str:
    """A heading's place on a page, from the one that Jupyter gives it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def text_for_sphinx(text: str) -> str:
    """Markdown of a page: call-outs as Sphinx knows them, and links to headings by Sphinx's names."""
    text = re.sub(r"(\.ipynb)?#([^)\s]+)\)", lambda m: f"{m[1] or ''}#{anchor(m[2])})", text)

    def call_out(match):
        body = re.sub(r"^> ?", "", match[0], flags=re.MULTILINE)
        name = match[1]
        body = body.replace(f"**{name}.**", "", 1).strip()
        return f":::{{admonition}} {name}\n:class: {LOOKS[name]}\n{body}\n:::"

    return re.sub(rf"^> \*\*({'|'.join(LOOKS)})\.\*\*.*(?:\n>.*)*", call_out, text, flags=re.MULTILINE)


def page_for_sphinx(notebook: dict) -> dict:
    """An executed page: cells that only check are folded, and a widget's place says where it runs."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = text_for_sphinx("".join(cell["source"]))
        tags = cell["metadata"].setdefault("tags", [])
        if "check" in tags:
            tags.append("hide-cell")
        for output in cell.get("outputs", []):
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                output["data"] = {"text/html": f"<p><em>{NEEDS_PYTHON}</em></p>"}
    notebook["metadata"].pop("widgets", None)
    return notebook


def write_sources(pages: Path, output: Path) -> None:
    """Write the book's sources to `output`, whole or not at all; `pages` has the executed notebooks."""
    with folder_written_whole(output) as folder:
        shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns("*.ipynb", "[0-9]*.py", ".*", "card_*"), dirs_exist_ok=True)
        for path in sorted(pages.glob("[0-9]*.ipynb")):
            notebook = json.loads(path.read_text(encoding="utf-8"))
            (folder / path.name).write_text(json.dumps(page_for_sphinx(notebook)), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, default=NOTEBOOKS)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    write_sources(arguments.pages, arguments.output)
