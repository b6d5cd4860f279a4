"""The notebooks as pages: what a browser loads for them, and how the code on them looks."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

from qwen3_codec.course.exercises import EXERCISES, solution
from qwen3_codec.course.pitfalls.pages import code, excerpt
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.layers import ConvStates, StreamingConv1d

ROOT = Path(__file__).parents[2]


def loaded_by(page):
    """What a browser asks for while it shows a page: addresses of tags, of styles, and all that a program names."""
    for tag in page.find_all(src=True):
        yield tag["src"]
    for tag in page.find_all("link", href=True):
        yield tag["href"]
    for tag in page.find_all("style"):
        yield from re.findall(r"""(?:url\(|@import)\s*["']?([^"')]+)""", tag.text)
    for tag in page.find_all("script"):
        yield from re.findall(r"""https?://[^"'\s]+""", tag.text)


def test_a_page_loads_nothing_from_elsewhere(tmp_path):
    """One with a widget, made with the Makefile's own options."""
    options = re.search(r"^PAGE := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    command = [sys.executable, "-m", "nbconvert", "--log-level", "ERROR", "--to", "html", *options]
    subprocess.run([*command, "--output-dir", tmp_path, "notebooks/00_hear_it.ipynb"], cwd=ROOT, check=True)
    page = BeautifulSoup((tmp_path / "00_hear_it.html").read_text(), "html.parser")
    asked = list(loaded_by(page))
    assert asked and all(address.startswith("data:") for address in asked), [a[:80] for a in asked if a[:5] != "data:"]
    assert page.title.text == "00_hear_it" and "It needs Python: it runs in JupyterLab (make lab)" in page.text
    assert "Lab(children=" not in page.text
    plain = BeautifulSoup(HTMLExporter().from_notebook_node(nbformat.v4.new_notebook())[0], "html.parser")
    assert {"require", "mathjax", "mermaid"} <= set(re.findall("require|mathjax|mermaid", " ".join(loaded_by(plain))))


def test_an_excerpt_follows_the_code_by_how_its_lines_begin():
    shown = excerpt(ConvStates.extend, "joined =", "self.give").data
    assert shown.startswith("`ConvStates.extend` in `qwen3_codec/streaming/states.py`, in part:")
    block = re.search(r"```python\n(.*)\n```", shown, re.DOTALL)[1].splitlines()
    assert block[0].startswith("# ") and block[1].startswith("joined = ") and "self.give" not in block[-1]
    assert excerpt(ConvStates.extend, "return").data.count("return joined") == 1
    for first, until in (("nothing like it", ""), ("joined =", "nothing like it")):
        with pytest.raises(ValueError, match="begins with 'nothing like it'"):
            excerpt(ConvStates.extend, first, until)


def test_code_that_is_shown_has_a_fixed_width_and_its_name():
    """In the pages of nbconvert as it comes: there a block of code in an output inherits its font."""
    shown = [code(StreamingConv1d.forward, ExactStreamingWrapper.forward), solution(next(iter(EXERCISES)))]
    data = [{f"text/{kind}": each.data} for kind, each in zip(("markdown", "html"), shown, strict=True)]
    outputs = [nbformat.v4.new_output("display_data", each) for each in data]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=outputs)])
    page = BeautifulSoup(HTMLExporter().from_notebook_node(notebook)[0], "html.parser")
    assert re.search(r"\.jp-OutputArea-output pre \{[^}]*font-family: inherit", str(page))
    blocks = page.select(".jp-OutputArea-output pre")
    assert len(blocks) == 3 and all("\ndef forward(self" in "\n" + block.text for block in blocks[:2])
    assert all(block.find_parent(style="font-family: monospace") for block in blocks)
    names = [paragraph.text for paragraph in page.select(".jp-RenderedMarkdown p")]
    assert names == [
        "StreamingConv1d.forward in qwen3_codec/streaming/layers.py:",
        "ExactStreamingWrapper.forward in qwen3_codec/streaming/exact.py:",
    ]
