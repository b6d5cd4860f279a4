"""The book's sources: the executed pages, the guide and the project's own documents, as Sphinx takes them."""

import json
import os.path
import re
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path, PurePosixPath

from ... import __all__ as PUBLIC
from ...files import CHECKOUT, folder_written_whole

NOTEBOOKS = CHECKOUT / "notebooks"
# Documents that stand elsewhere in the project, and where the book has them.
DOCUMENTS = {
    "README.md": "project/readme.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "qwen3_codec/demo/README.md": "project/demo.md",
}
NEEDS_PYTHON = "A widget, which needs Python: it runs in JupyterLab (<code>make lab</code>). Here is its last state."
# The start page's beginning in the book: the lab where it is, else what it looks like.
PICTURE = "![The lab: controls, the waveforms with their difference, the error of each chunk](page.png)"
WITH_LAB = f"""<div class="lab" data-lab="lab/index.html" data-title="The lab">

{PICTURE}

The lab runs here when a server hands out the book: `python -m http.server --directory build/walkthrough`.

</div>
"""
WITHOUT_LAB = (
    f"{PICTURE}\n\nThe lab is not in this copy of the book, because npm was not there to build it: see `make page`.\n"
)
BEFORE = "## Is this for me?"
# How a page's call-outs look in the book.
LOOKS = {"Trap": "warning", "Why": "note", "Try it": "tip", "Predict": "hint"}

# What of a cell is folded, by its tag.
FOLDED = {"check": "hide-cell", "exercise": "hide-output"}


def anchor(heading: str) -> str:
    """A heading's place on a page as Sphinx names it, from the name that Jupyter gives it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def with_links(text: str, home: str, place: str) -> str:
    """Markdown whose links to files of the project lead to where the book has them; other files become plain text.

    `home` is the document's path in the project, `place` its path in the book.
    """

    def link(match):
        mark, label, target, heading = match.groups()
        if ":" in target:
            return match[0]
        found = os.path.normpath(PurePosixPath(home).parent / target) if target else home
        path = DOCUMENTS.get(found, found.removeprefix("notebooks/"))
        if path == found and not target.startswith("#") and found != home:
            return label
        path = os.path.relpath(path, PurePosixPath(place).parent) if target else ""
        return f"{mark}[{label}]({path}{f'#{anchor(heading)}' if heading else ''})"

    text = re.sub(r'<a href="([^":]+)">(.*?)</a>', r"[\2](\1)", text)
    return re.sub(r"(!?)\[((?:[^\[\]]|`[^`]*`)*)\]\(([^)\s#]*)(?:#([^)\s]+))?\)", link, text)


def with_call_outs(text: str) -> str:
    """Markdown with call-outs and folded answers as Sphinx knows them."""

    def call_out(match):
        body = re.sub(r"^> ?", "", match[0], flags=re.MULTILINE)
        name = match[1]
        body = body.replace(f"**{name}.**", "", 1).strip()
        return f":::{{admonition}} {name}\n:class: {LOOKS[name]}\n{body}\n:::"

    text = re.sub(rf"^> \*\*({'|'.join(LOOKS)})\.\*\*.*(?:\n>.*)*", call_out, text, flags=re.MULTILINE)
    # Blank lines: what stands between two pieces of HTML is Markdown.
    text = re.sub(r"<details><summary>(.*?)</summary>\s*", r"\n<details><summary>\1</summary>\n\n", text)
    return re.sub(r"\s*</details>", "\n\n</details>\n", text)


class Names:
    """Public names that a page uses, each linked to the reference where its prose first has it as `code`."""

    def __init__(self, code: str):
        self.left = {n for n in PUBLIC if re.search(rf"import .*\b{n}\b", code) or re.search(rf"\bqc\.{n}\b", code)}

    def linked(self, text: str) -> str:
        return "\n\n".join(map(self._linked, text.split("\n\n")))

    def _linked(self, block: str) -> str:
        if block.lstrip().startswith(("#", "<", "```", "    ")):
            return block

        def link(match):
            if match[1] not in self.left:
                return match[0]
            self.left.remove(match[1])
            return f"{{py:obj}}`{match[1]} <qwen3_codec.{match[1]}>`"

        return re.sub(r"(?<![\[`}])`(\w+)`(?![`\]])", link, block)


def joined(outputs: list[dict]) -> list[dict]:
    """Outputs, with pieces of one stream that follow each other as one."""
    result: list[dict] = []
    for output in outputs:
        same = result and output["output_type"] == "stream" and output.get("name") == result[-1].get("name")
        if same:
            result[-1] = output | {"text": "".join(result[-1]["text"]) + "".join(output["text"])}
        else:
            result.append(output)
    return result


def page_for_sphinx(notebook: dict, name: str) -> dict:
    """An executed page, with call-outs and folds as Sphinx has them, and a widget as it was when the page was saved."""
    names = Names("\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"))
    widgets = (
        notebook["metadata"].pop("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    )
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = with_links("".join(cell["source"]), f"notebooks/{name}", name)
            cell["source"] = names.linked(with_call_outs(text))
            continue
        tags = cell["metadata"].setdefault("tags", [])
        tags += [FOLDED[tag] for tag in tags if tag in FOLDED]
        cell["outputs"] = [
            shown for output in joined(cell.get("outputs", [])) for shown in outputs_shown(output, widgets)
        ]
    return notebook


def outputs_shown(output: dict, widgets: dict) -> list[dict]:
    """What the book shows in an output's place."""
    if output["output_type"] == "stream":
        text = re.sub(r"^.*\r(?=.)", "", "".join(output["text"]), flags=re.MULTILINE)  # a progress bar's last line
        bar = output["name"] == "stderr" and re.search(r"\d+%\|", text)
        return [] if bar or not text.strip() else [output | {"text": text}]
    view = output.get("data", {}).get("application/vnd.jupyter.widget-view+json")
    if not view:
        return [output]
    model = view["model_id"]
    settings = ", ".join(saved_settings(model, widgets))
    words = f"<p><em>{NEEDS_PYTHON}</em></p>" + (f"<p>{escape(settings)}</p>" if settings else "")
    return [shown_as_html(words), *saved_outputs(model, widgets)]


def shown_as_html(text: str) -> dict:
    return {"output_type": "display_data", "metadata": {}, "data": {"text/html": text}}


def saved_widgets(model: str, widgets: dict) -> Iterator[dict]:
    """A widget's state and, in their order, of those in it; without what was hidden when the page was saved."""
    state = widgets.get(model, {}).get("state", {})
    layout = widgets.get(state.get("layout", "").removeprefix("IPY_MODEL_"), {}).get("state", {})
    if layout.get("display") != "none":
        yield state
        for child in state.get("children") or []:
            yield from saved_widgets(child.removeprefix("IPY_MODEL_"), widgets)


def saved_settings(model: str, widgets: dict) -> list[str]:
    """What the widget's controls were set to."""
    found = []
    for state in saved_widgets(model, widgets):
        labels, index = state.get("_options_labels"), state.get("index")
        value = state.get("value") if labels is None or index is None else labels[index]
        ignored = state.get("disabled") or "bar_style" in state  # switched off, or a progress bar
        if state.get("description") and value not in (None, "", []) and not ignored:
            found.append(f"{state['description']}: {value}")
    return found


def saved_outputs(model: str, widgets: dict) -> list[dict]:
    """What a widget and those in it had shown when the page was saved."""
    found = []
    for state in saved_widgets(model, widgets):
        found += state.get("outputs", [])
        if state.get("_model_name") == "HTMLModel" and state["value"].strip():
            found.append(shown_as_html(state["value"]))
    return found


def write_sources(pages: Path, output: Path, lab: bool = False) -> None:
    """Write the book's sources to `output`, whole or not at all; `pages` has the executed notebooks.

    With `lab` the start page has a place for the lab in a browser.
    """
    with folder_written_whole(output) as folder:
        shutil.copytree(
            NOTEBOOKS, folder, ignore=shutil.ignore_patterns("*.ipynb", "[0-9]*.py", ".*"), dirs_exist_ok=True
        )
        for path in sorted(pages.glob("[0-9]*.ipynb")):
            notebook = json.loads(path.read_text(encoding="utf-8"))
            (folder / path.name).write_text(json.dumps(page_for_sphinx(notebook, path.name)), encoding="utf-8")
        documents = {
            path.relative_to(CHECKOUT).as_posix(): path.relative_to(NOTEBOOKS).as_posix()
            for path in NOTEBOOKS.rglob("*.md")
        }
        for home, place in {**documents, **DOCUMENTS}.items():
            (folder / place).parent.mkdir(exist_ok=True)
            text = (CHECKOUT / home).read_text(encoding="utf-8")
            if place == "index.md":
                text = text.replace(BEFORE, f"{WITH_LAB if lab else WITHOUT_LAB}\n{BEFORE}")
            (folder / place).write_text(with_call_outs(with_links(text, home, place)), encoding="utf-8")
