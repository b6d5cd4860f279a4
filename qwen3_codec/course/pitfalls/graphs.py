"""Small steps through an exporter and back: does the graph do at other lengths what the module does?"""

import inspect
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...exporting.diagnostics import captured
from ...exporting.diagnostics.baked_in_axes import arrays_of, raw_session, run_with, why_it_stopped
from ...exporting.tracing import OPSET
from ...runtime.metrics import max_error
from .trap import RIGHT, STOPS, WRONG, Outcome, caught_by

Tensors = Mapping[str, torch.Tensor]
# Graph and step do the same few float32 operations.
SAME = 1e-5


def row(length: int, seed: int = 0) -> torch.Tensor:
    """Normal values, [1, length]: in the steps below axis 1 of such a tensor is the one that must stay dynamic."""
    return torch.randn(1, length, generator=torch.Generator().manual_seed(seed))


def export_step(
    step: nn.Module,
    example: Tensors,
    path: Path,
    exporter: str,
    dimension: Callable = torch.export.Dim,
    opset: int = OPSET,
) -> None:
    """`torch.onnx.export` with each input's axis 1 dynamic, as `example` names them; inputs of one axis are static.

    `dimension` gives dynamo what it takes for an axis of that name. A step may take them all as `*inputs`.
    """
    inputs = list(example)
    dynamic = [name for name, tensor in example.items() if tensor.ndim == 2]
    if exporter == "torchscript":
        options = {"dynamo": False, "dynamic_axes": {name: {1: f"{name}_length"} for name in dynamic}}
    else:
        axes = {name: {1: dimension(f"{name}_length")} if name in dynamic else {} for name in inputs}
        parameters = inspect.signature(step.forward).parameters.values()
        if variadic := [each.name for each in parameters if each.kind is each.VAR_POSITIONAL]:
            axes = {variadic[0]: tuple(axes.values())}
        options = {"dynamo": True, "dynamic_shapes": axes, "external_data": False, "verbose": False}
    torch.onnx.export(step.eval(), tuple(example.values()), path, input_names=inputs, opset_version=opset, **options)


def compare(step: Callable, path: Path, cases: Sequence[Tensors]) -> Outcome:
    """Run the graph at `path` and `step` on each case: the largest error, and a line of words for each case."""
    session = raw_session(path)
    taken = [tensor.name for tensor in session.get_inputs()]
    results = [(_label(case), *_compare_one(session, case, arrays_of(step(*case.values())))) for case in cases]
    lines = [f"{label}: {words}" for label, _, _, words in results]
    if lost := [name for name in cases[0] if name not in taken]:
        lines.insert(0, f"the graph has no input {', '.join(lost)}")
    labels, verdicts, errors, _ = zip(*results, strict=True)
    return Outcome(float(np.max(errors)), "\n".join(lines), _first(labels, verdicts), verdicts)


def _first(labels: Sequence[str], verdicts: Sequence[str]) -> str:
    """The first case that is not right, of cases that begin with the example or go from short to long."""
    wrong = [f"{label} ({verdict})" for label, verdict in zip(labels, verdicts, strict=True) if verdict != RIGHT]
    if len(wrong) > 1 and len(wrong) == len(labels) - 1:
        return f"any other than the example's; {wrong[0]}"
    return wrong[0] if wrong else ""


def _label(case: Tensors) -> str:
    return ", ".join(
        f"{name} {tensor.shape[1]} long" if tensor.ndim == 2 else f"{name} {tensor.item():g}"
        for name, tensor in case.items()
    )


def _compare_one(session, case: Tensors, expected: list[np.ndarray]) -> tuple[str, float, str]:
    """(verdict, error, words) of one run; the words say so where ONNX Runtime logs a warning meanwhile."""
    with captured() as said:
        verdict, error, words = _compare_quietly(session, case, expected)
    for each in said:
        print(each.text, file=sys.stderr)  # the run that this is part of captures it as well
    warned = any("[W:onnxruntime" in each.text for each in said)
    return verdict, error, words + "; ONNX Runtime logs a warning" * warned


def _compare_quietly(session, case: Tensors, expected: list[np.ndarray]) -> tuple[str, float, str]:
    try:
        found = run_with(session, {name: tensor.numpy() for name, tensor in case.items()})
    except Exception as error:  # ONNX Runtime's exceptions share no narrower base class
        return STOPS, float("inf"), why_it_stopped(error)
    for wanted, array in zip(expected, found, strict=True):
        if wanted.shape != array.shape:
            return WRONG, float("inf"), f"gives the shape {list(array.shape)}, must be {list(wanted.shape)}"
    error = float(np.max([max_error(*pair) for pair in zip(expected, found, strict=True)]))
    return (RIGHT, error, RIGHT) if error < SAME else (WRONG, error, f"off by {error:.2g}")


def in_graph(
    example: Tensors, cases: Sequence[Tensors], opset: int = OPSET
) -> Callable[[type[nn.Module], str], Outcome]:
    """A demonstration: export the step with `example`, then compare graph and step on `cases`."""

    @caught_by("the graph against its module, at other lengths and values than the example's")
    @torch.no_grad()
    def demonstrate(step: type[nn.Module], exporter: str) -> Outcome:
        module = step()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "step.onnx"
            export_step(module, example, path, exporter, opset=opset)
            return compare(module, path, cases)

    return demonstrate
