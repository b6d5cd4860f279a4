"""The notebooks as files: each .ipynb holds its .py cell by cell, was executed in order, and keeps the habits."""

import base64
import re
from pathlib import Path

import jupytext
import nbformat
import pytest

from qwen3_codec.course import EXERCISES
from qwen3_codec.course.pitfalls import TRAPS

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))


@pytest.fixture(params=NAMES)
def pair(request):
    source = jupytext.read(FOLDER / f"{request.param}.py")
    return source, nbformat.read(FOLDER / f"{request.param}.ipynb", as_version=4)


def test_there_is_a_pair_for_each():
    assert NAMES and sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


def test_cells_are_the_same(pair):
    source, executed = pair
    cells = [[(c.cell_type, c.source.rstrip(), c.metadata.get("tags", [])) for c in nb.cells] for nb in pair]
    assert len(source.cells) == len(executed.cells)
    for ours, theirs in zip(*cells, strict=True):
        assert ours == theirs


def test_the_ipynb_was_executed_in_order_and_without_an_error(pair):
    code = [cell for cell in pair[1].cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    text = nbformat.writes(pair[1])
    assert not re.search(r"/(work|home|root|tmp)/", text), "a path of the machine that executed it"


def test_habits(pair):
    cells = pair[0].cells
    headings = [line for c in cells if c.cell_type == "markdown" for line in c.source.splitlines() if line[:2] == "# "]
    assert len(headings) == 1 and cells[0].source.startswith("# ") and "1." in cells[0].source
    assert sum("parameters" in c.metadata.get("tags", []) for c in cells) == 1
    code = [c.source for c in cells if c.cell_type == "code"]
    # The workbench's cells hold a whole step, so that a reader can change it.
    short = [c.source for c in cells if c.cell_type == "code" and "workbench" not in c.metadata.get("tags", [])]
    long = [source for source in short if len([line for line in source.splitlines() if line.strip()]) > 20]
    assert not long, "a cell of more than 20 lines belongs into the package"
    assert sum("assert" in source or "check(" in source for source in code) >= 3
    assert "normalize=True" not in "".join(code)


def headings(name):
    """The anchors of a notebook's headings: their words with hyphens; and of the catalogue's cards."""
    cells = jupytext.read(FOLDER / f"{name}.py").cells
    lines = [line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    cards = {trap.anchor for trap in TRAPS.values()} if name == "07_trap_catalogue" else set()
    return cards | {
        line.lstrip("#").strip().replace(" ", "-").replace("`", "") for line in lines if line.startswith("#")
    }


@pytest.mark.parametrize("name", NAMES)
def test_links_between_notebooks_lead_to_headings(name):
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((\w+\.ipynb)?(?:#([^)\s]+))?\)", text):
        other = target.removesuffix(".ipynb") or name
        assert other in NAMES, f"{name} links to {target}, which is not there"
        assert not anchor or anchor in headings(other), f"{name}: {target}#{anchor}"


def sections(notebook):
    markdown = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [line for source in markdown for line in source.splitlines() if line.startswith("## ")]


def test_each_ends_with_what_one_can_do_now(pair):
    assert sections(pair[0])[-1] == "## What you can do now"
    assert not [line for line in sections(pair[0]) if line.endswith(".")]


def test_each_figure_has_a_caption(pair):
    """Under each picture stands what is plotted and what to see."""
    for cell, after in zip(pair[1].cells, [*pair[1].cells[1:], None], strict=True):
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            assert after is not None and after.source.startswith("**Figure.** "), cell.source


def test_pictures_are_no_wider_than_a_page(pair):
    """At most 850 pixels, so that text of 9 pt is not made smaller where a page has 800 of them."""
    for cell in pair[1].cells:
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                width = int.from_bytes(base64.b64decode(picture)[16:20], "big")  # of a PNG's first chunk
                assert width <= 850, cell.source


def test_one_map_on_the_start_page_in_the_readme_and_from_page_to_page():
    index, readme = ((FOLDER / name).read_text(encoding="utf-8") for name in ("index.md", "../README.md"))
    rows = re.findall(r"^\| \[(.+?)\]\((\w+)\.ipynb\) \| .+ \| (\d+|reference) \|$", index, re.MULTILINE)
    assert [name for _, name, _ in rows] == NAMES
    assert re.findall(r"^\| \[(.+?)\]\(notebooks/(\w+)\.ipynb\)", readme, re.MULTILINE) == [row[:2] for row in rows]
    for (title, name, minutes), following in zip(rows, [*NAMES[1:], None], strict=True):
        first, *_, last = (c.source for c in jupytext.read(FOLDER / f"{name}.py").cells if c.cell_type == "markdown")
        assert first.splitlines()[0].startswith(f"# {title}"), name
        assert minutes == "reference" or f" {minutes} minutes" in first, name
        (step,) = re.findall(r"^\*\*Next:\*\* (.*)$", last, re.MULTILINE)
        assert following is None or f"({following}.ipynb)" in step, name


def test_an_exercises_heading_says_what_its_record_says():
    for exercise in EXERCISES.values():
        text = (FOLDER / f"{exercise.notebook}.py").read_text(encoding="utf-8")
        heading = f"# ### Exercise: {exercise.name} {exercise.dots} · {exercise.minutes} min"
        assert text.count(heading + "\n") == 1, heading


def test_no_red_boxes_and_no_endless_tables(pair):
    """Progress bars and warnings go to stderr, which pages show in red; a table of more than 14 rows is folded."""
    outputs = [output for cell in pair[1].cells if cell.cell_type == "code" for output in cell.outputs]
    red = [output.text[:200] for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert not red
    for output in outputs:
        text = output.get("data", {}).get("text/markdown", "")
        if text.count("\n| ") > 14 + 1 and "exercise" not in text.splitlines()[0]:
            assert "<details>" in text, text[:200]


def test_the_pages_links_lead_to_headings():
    """The lab in a browser names sections by their anchors: a heading's words with hyphens."""
    script = (FOLDER.parent / "qwen3_codec" / "course" / "page" / "static" / "main.js").read_text(encoding="utf-8")
    links = re.findall(r'"(\d\d_\w+)\.html#([^"]+)"', script)
    assert len(links) >= 6
    for name, anchor in links:
        assert anchor in headings(name), name


def test_no_page_has_what_a_page_would_load_a_program_for(pair):
    """Formulas and diagrams are drawn by programs that the pages leave out."""
    text = "".join(cell.source for cell in pair[0].cells if cell.cell_type == "markdown")
    assert not re.search(r"\$|\\[(\[]|\\begin|```mermaid", text)
    kinds = {kind for cell in pair[1].cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert not kinds & {"text/latex", "text/vnd.mermaid", "application/javascript"}
