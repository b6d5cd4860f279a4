"""The notebooks as files: each .ipynb holds its .py cell by cell, was executed in order, and keeps the habits."""

import re
from pathlib import Path

import jupytext
import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


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
    long = [source for source in code if len([line for line in source.splitlines() if line.strip()]) > 20]
    assert not long, "a cell of more than 20 lines belongs into the package"
    assert sum("assert" in source for source in code) >= 4
    assert "normalize=True" not in "".join(code)


def test_the_pages_links_lead_to_headings():
    """The lab in a browser names sections by their anchors: a heading's words with hyphens."""
    script = (FOLDER.parent / "qwen3_codec" / "lab" / "page" / "main.js").read_text(encoding="utf-8")
    links = re.findall(r'"(\d\d_\w+)\.html#([^"]+)"', script)
    assert len(links) >= 6
    for name, anchor in links:
        cells = jupytext.read(FOLDER / f"{name}.py").cells
        lines = [line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
        assert anchor in {line.lstrip("#").strip().replace(" ", "-") for line in lines if line.startswith("#")}, name
