"""How code looks that a page shows as output."""

import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

from qwen3_codec.course.exercises import EXERCISES, solution
from qwen3_codec.course.pitfalls.pages import code, excerpt
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.layers import ConvStates, StreamingConv1d


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
