"""Small ONNX graphs as pictures, drawn from their own nodes: the length that became a constant is circled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import onnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyBboxPatch

from .plots.style import fitted, styled

# What an operator calls its inputs, where a picture is to say which of them is a constant.
ARGUMENTS = {
    "Slice": ("data", "from", "to", "axis", "step"),
    "Gather": ("data", "index"),
    "CumSum": ("data", "axis"),
    "Unsqueeze": ("data", "axis"),
    "Reshape": ("data", "shape"),
}
FAR = 2**31  # an end beyond this means "to the end"
COMPUTED = "computed"
BAKED_IN, FOLLOWS = ("#c00000", "-", "baked in"), ("#1f5fa8", "--", "follows")
WIDTH, LINE = 1.5, 0.22  # of a box and of a line of text, in the units of a rank


@dataclass(frozen=True)
class Box:
    """An input, a node or an output: its lines of text, and what it takes that is no constant."""

    name: str
    lines: tuple[str, ...]
    sources: tuple[str, ...] = ()
    is_tensor: bool = False


@styled
def traced_graphs(models: Mapping[str, onnx.ModelProto], baked_in: int, title: str) -> Figure:
    """Graphs side by side, {label: model}, from the inputs down; constants stand in the node that takes them.

    A constant of `baked_in`, the length of the example, or of its negative is circled, and so is an argument that is
    computed in its place.
    """
    graphs = {label: boxes(model) for label, model in models.items()}
    places = {label: _places(found) for label, found in graphs.items()}
    ranks = 1 + max(y for place in places.values() for _, y in place.values())
    figure, row = plt.subplots(1, len(models), figsize=(8.2, 0.7 + 0.62 * ranks), layout="constrained", squeeze=False)
    for axes, (label, found) in zip(row[0], graphs.items(), strict=True):
        _draw(axes, found, places[label], baked_in)
        axes.set(title=label, xlim=(-1.9, 1.9), ylim=(ranks - 0.7, -0.3))
        axes.axis("off")
    figure.suptitle(fitted(title, figure, 11), fontsize=11)
    return figure


def boxes(model: onnx.ModelProto) -> list[Box]:
    """What there is to draw, in the order of the data: inputs, nodes that compute, outputs."""
    graph = model.graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    found = [Box(value.name, (value.name,), is_tensor=True) for value in graph.input]
    for node in graph.node:
        if node.op_type != "Constant":
            sources = tuple(name for name in node.input if name not in constants)
            found.append(Box(node.output[0], (node.op_type, *_arguments(node, constants)), sources))
    return found + [Box(f"{value.name} out", (value.name,), (value.name,), is_tensor=True) for value in graph.output]


def _arguments(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> list[str]:
    """A line for each argument that is a constant, or is computed; a step of 1 goes without saying."""
    words = ARGUMENTS.get(node.op_type, ())
    lines = [
        f"{word} {_number(constants[name]) if name in constants else COMPUTED}"
        for word, name in zip(words[1:], node.input[1:], strict=False)
    ]
    return [line for line in lines if line != "step 1"]


def _number(constant: np.ndarray) -> str:
    values = constant.reshape(-1).tolist()
    words = ["the end" if value > FAR else f"{value:g}".replace("-", "−") for value in values]
    return ", ".join(words)


def _places(found: Sequence[Box]) -> dict[str, tuple[float, int]]:
    """(x, rank) of each box: a rank below what it takes, in the middle of it, and beside others of its rank."""
    rank: dict[str, int] = {}
    for box in found:
        rank[box.name] = 1 + max((rank[source] for source in box.sources), default=-1)
    x: dict[str, float] = {}
    for level in range(1 + max(rank.values())):
        row = [box for box in found if rank[box.name] == level]
        wanted = [np.mean([x[source] for source in box.sources]) if box.sources else 0.0 for box in row]
        order = sorted(range(len(row)), key=lambda index: wanted[index])
        crowded = len(row) > 1
        for position, index in enumerate(order):
            x[row[index].name] = 2.0 * position - (len(row) - 1) if crowded else float(wanted[index])
    return {name: (x[name], rank[name]) for name in x}


def _draw(axes: Axes, found: Sequence[Box], places: Mapping[str, tuple[float, int]], baked_in: int) -> None:
    heights = {box.name: LINE * len(box.lines) + 0.1 for box in found}
    for box in found:
        x, y = places[box.name]
        for source in box.sources:
            start, end = places[source][1] + heights[source] / 2, y - heights[box.name] / 2
            arrow = {"arrowstyle": "->", "color": "0.2", "shrinkA": 0, "shrinkB": 1}
            axes.annotate("", (x, end), (places[source][0], start), arrowprops=arrow)
        corner = x - WIDTH / 2, y - heights[box.name] / 2
        look = {"boxstyle": "square,pad=0.02", "facecolor": "white", "edgecolor": "black"}
        if box.is_tensor:
            look |= {"boxstyle": "round,pad=0.02,rounding_size=0.15", "facecolor": "#eef3fa"}
        axes.add_patch(FancyBboxPatch(corner, WIDTH, heights[box.name], **look))
        for index, line in enumerate(box.lines):
            place = x, y + LINE * (index - (len(box.lines) - 1) / 2)
            weight = "normal" if index else "bold"
            axes.annotate(line, place, ha="center", va="center", fontsize=9.5, fontweight=weight, color="black")
            value = line.split(" ")[-1] if index else ""
            if value == COMPUTED or value.lstrip("−") == str(baked_in):
                _circle(axes, place, *(FOLLOWS if value == COMPUTED else BAKED_IN))


def _circle(axes: Axes, place: tuple[float, float], colour: str, line: str, words: str) -> None:
    look = {"fill": False, "edgecolor": colour, "linewidth": 2, "linestyle": line}
    axes.add_patch(Ellipse(place, 1.6, 1.3 * LINE, **look))
    beside = {"xytext": (place[0] + 0.85, place[1]), "va": "center", "fontsize": 9.5, "fontweight": "bold"}
    axes.annotate(words, place, color=colour, **beside)
