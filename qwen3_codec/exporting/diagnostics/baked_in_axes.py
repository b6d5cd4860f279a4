"""Find the axes of a graph that were baked in as constants, and the node where each first shows."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from ...runtime.metrics import MAX_ERROR, scaled_error
from ...spec import StateSpec

# Integer tensors up to this size are shapes, ends of slices and the like: their values count, not their sizes.
SHAPE_LIKE = 16

Places = Mapping[str, Sequence[tuple[str, int]]]


@dataclass(frozen=True)
class BakedInAxis:
    """An axis that does not follow: `inputs` have it, at `length` the graph went wrong, first in `node`.

    `node` is "" where the graph refused the input itself, or where all shapes follow and the values alone are wrong.
    """

    axis: str
    inputs: tuple[str, ...]
    length: int
    node: str
    what: str

    def __str__(self) -> str:
        where = f", first in the node {self.node}" if self.node else ""
        return f"{self.axis} (of {', '.join(self.inputs)}) at {self.length}: {self.what}{where}"


def find_baked_in_axes(
    model: Path,
    module: Callable,
    example: Mapping[str, np.ndarray],
    axes: Places,
    lengths: Sequence[int] = (1, 2, 5, 12),
    may_be_empty: Collection[str] = (),
) -> list[BakedInAxis]:
    """Change the length of one axis at a time and compare the graph with the module it was made from.

    `example` are inputs that work, in the module's order, and `axes` says which places share a length, {name: [(input,
    axis), ...]}; `axes_of(spec)` gives it for a declared graph. Axes in `may_be_empty` are tried with a length of 0
    too, as a state at the start of a stream has it. Returns the first failure of each axis; an empty list says that
    every axis followed at every length. Raises ValueError where `example` is empty along an axis.
    """
    session = raw_session(model, log=False)
    found = []
    for axis, places in axes.items():
        for length in (*lengths, 0) if axis in may_be_empty else lengths:
            feeds = resized(example, places, length)
            if failure := _failure(session, module, feeds):
                what, node = failure
                node = node or _first_that_stays(model, example, feeds)
                found.append(BakedInAxis(axis, tuple(name for name, _ in places), length, node, what))
                break
    return found


def axes_of(spec: StateSpec) -> dict[str, list[tuple[str, int]]]:
    """The dynamic axes of a declared graph. All keys and values have one length, whatever their axes are called."""
    places: dict[str, list[tuple[str, int]]] = {}
    for tensor in spec.all_inputs:
        for index, axis in tensor.dynamic_axes.items():
            places.setdefault("past_seq" if axis.startswith("past_seq") else axis, []).append((tensor.name, index))
    return places


def resized(example: Mapping[str, np.ndarray], places: Sequence[tuple[str, int]], length: int) -> dict[str, np.ndarray]:
    """`example` with `length` at `places`: cut, or begun again from the front."""
    feeds = dict(example)
    for name, axis in places:
        if not feeds[name].shape[axis]:
            raise ValueError(f"the example's {name} is empty along axis {axis}; it needs a length of at least 1")
        feeds[name] = np.take(feeds[name], np.arange(length) % feeds[name].shape[axis], axis)
    return feeds


def _failure(session: Any, module: Callable, feeds: dict[str, np.ndarray]) -> tuple[str, str] | None:
    """(what is wrong, the node that says so or "") of one run, or None."""
    with torch.no_grad():
        expected = arrays_of(module(*map(torch.from_numpy, feeds.values())))
    try:
        outputs = run_with(session, feeds)
    except Exception as stop:  # ONNX Runtime's exceptions share no narrower base class
        node = failing_node(stop)
        return "ONNX Runtime stops" if node else why_it_stopped(stop), node
    for value, wanted, array in zip(session.get_outputs(), expected, outputs, strict=True):
        if wanted.shape != array.shape:
            return f"{value.name} has the shape {list(array.shape)}, must be {list(wanted.shape)}", ""
        if not (error := scaled_error(wanted, array)) <= MAX_ERROR:
            return f"{value.name} is off by {error:.1e}", ""
    return None


def _first_that_stays(model: Path, example: Mapping[str, np.ndarray], feeds: Mapping[str, np.ndarray]) -> str:
    """The first node with an input that follows the change from `example` to `feeds` and outputs that do not, or ""."""
    graph = onnx.load(model)
    try:
        before, after = (_signatures(graph, inputs) for inputs in (example, feeds))
    except Exception:  # the graph takes no other length at all: there is nothing to compare
        return ""
    moved = {name for name in before if before[name] != after[name]}
    for node in graph.graph.node:
        if node.op_type == "Shape":  # of a shape whose values moved: its own rank does not, and need not
            continue
        if moved.intersection(node.input) and not moved.intersection(node.output):
            return f"{node.op_type} {node.name}"
    return ""


def _signatures(graph: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, tuple]:
    """What tells two lengths apart, for every tensor of the graph: its shape, or its values where it holds a shape."""
    every = onnx.ModelProto()
    every.CopyFrom(graph)
    names = [name for node in every.graph.node for name in node.output if name]
    del every.graph.output[:]
    every.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = raw_session(every.SerializeToString(), optimized=False, log=False)
    values = run_with(session, inputs, names)
    return {name: _signature(array) for name, array in [*inputs.items(), *zip(names, values, strict=True)]}


def _signature(array: np.ndarray) -> tuple:
    shape_like = array.dtype.kind in "iu" and array.size <= SHAPE_LIKE
    return (*array.shape, *array.ravel().tolist()) if shape_like else array.shape


def raw_session(model: Path | bytes, optimized: bool = True, log: bool = True) -> onnxruntime.InferenceSession:
    """A session without any check of ours, on one thread; without its `log`, errors are raised and not printed too."""
    options = onnxruntime.SessionOptions()
    if not log:
        options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_with(session: Any, feeds: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> list[np.ndarray]:
    """Run with those of `feeds` that the graph takes: an export may have lost some of its inputs."""
    taken = {tensor.name for tensor in session.get_inputs()}
    return session.run(outputs, {name: array for name, array in feeds.items() if name in taken})


def arrays_of(result: Any) -> list[np.ndarray]:
    """A module's result as a list of arrays."""
    return [tensor.numpy() for tensor in (result if isinstance(result, tuple) else (result,))]


def failing_node(error: Exception) -> str:
    """Kind and name of the node that ONNX Runtime says it stopped in, or ""."""
    found = re.search(r"running (\w+) node\. Name:'([^']*)'", str(error))
    return f"{found[1]} {found[2]}" if found else ""


def why_it_stopped(error: Exception) -> str:
    """The first line of ONNX Runtime's error in its own words, without its number and its source's folders."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error)).splitlines()[0]
    return re.sub(r"\S+[/\\](?=\w+\.(h|cc):\d+ )", "", text)
