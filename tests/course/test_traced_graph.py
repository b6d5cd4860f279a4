"""The picture of a traced graph shows the graph's own nodes, and circles the length that became a constant."""

import matplotlib
import onnx
import pytest
import torch
from matplotlib.patches import Ellipse

matplotlib.use("agg")
import matplotlib.pyplot as plt

from qwen3_codec.course.lab.traced_graph import boxes, traced_graphs
from qwen3_codec.exporting.diagnostics import captured


class Follows(torch.nn.Module):
    def forward(self, x, past):
        return torch.cat([past, x], dim=1)[:, -x.size(1) :]


class BakedIn(torch.nn.Module):
    def forward(self, x, past):
        return torch.cat([past, x], dim=1)[:, -int(x.size(1)) :]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    found, path = {}, tmp_path_factory.mktemp("traced") / "step.onnx"
    for step in (BakedIn(), Follows()):
        with captured():
            names = {"input_names": ["x", "past"], "output_names": ["y"], "dynamic_axes": {"x": {1: "n"}}}
            torch.onnx.export(step, (torch.zeros(1, 3), torch.zeros(1, 2)), path, dynamo=False, **names)
        found[type(step).__name__] = onnx.load(path)
    return found


def test_boxes_are_the_nodes_that_compute(models):
    for model in models.values():
        found = boxes(model)
        computes = [node.op_type for node in model.graph.node if node.op_type != "Constant"]
        assert [box.lines[0] for box in found] == ["x", "past", *computes, "y"]
        names = {box.name for box in found}
        assert all(source in names for box in found for source in box.sources)
    (frozen,), (follows,) = ([box for box in boxes(m) if box.lines[0] == "Slice"] for m in models.values())
    assert frozen.lines == ("Slice", "from −3", "to the end", "axis 1") and len(frozen.sources) == 1
    assert follows.lines == ("Slice", "from computed", "to the end", "axis 1") and len(follows.sources) == 2


def test_the_constant_is_circled_and_what_is_computed_is_circled_otherwise(models):
    figure = traced_graphs(models, 3, "title")
    circles = [[p for p in axes.patches if isinstance(p, Ellipse)] for axes in figure.axes]
    assert [len(found) for found in circles] == [1, 1]
    assert circles[0][0].get_linestyle() != circles[1][0].get_linestyle(), "not by colour alone"
    words = [{text.get_text() for text in axes.texts} for axes in figure.axes]
    assert "baked in" in words[0] and "follows" in words[1]
    other = traced_graphs(models, 4, "another example")
    assert not [p for p in other.axes[0].patches if isinstance(p, Ellipse)], "3 is not the length of that example"
    figure.canvas.draw()
    small = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_fontsize() < 9]
    assert not small and figure.get_figwidth() <= 8.5
    plt.close("all")
