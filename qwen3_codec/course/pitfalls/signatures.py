"""Names and axes: how a signature with `*args` and each exporter's way to say "dynamic" go together, and do not."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from .graphs import compare, row
from .trap import Outcome, Trap, caught_by

INPUTS, OUTPUTS = ["x", "past_0", "past_1"], ["next_0", "next_1"]
NAMES = {"input_names": INPUTS, "output_names": OUTPUTS}
EXAMPLE = row(3), row(2, seed=1), row(2, seed=2)


class Variadic(nn.Module):
    """Each past grows by `x` and is cut to its last 8."""

    def forward(self, x, *past):
        return tuple(torch.cat([p, x], 1)[:, -8:] for p in past)


def some_names(path):
    torch.onnx.export(
        Variadic().eval(), EXAMPLE, path, dynamo=False,
        input_names=["x"], dynamic_axes={name: {1: name} for name in INPUTS},  # trap
    )  # fmt: skip


def misspelt_axis(path):
    axes = {"x": {1: "frames"}, "past_kv_0": {1: "past_seq_0"}, "past_1": {1: "past_seq_1"}}  # trap
    torch.onnx.export(Variadic().eval(), EXAMPLE, path, dynamo=False, dynamic_axes=axes, **NAMES)


def every_name(path):
    axes = {"x": {1: "frames"}, "past_0": {1: "past_seq_0"}, "past_1": {1: "past_seq_1"}}
    torch.onnx.export(Variadic().eval(), EXAMPLE, path, dynamo=False, dynamic_axes=axes, **NAMES)


def axes_for_dynamo(path):
    axes = {name: {1: name} for name in INPUTS}
    torch.onnx.export(Variadic().eval(), EXAMPLE, path, dynamo=True, dynamic_axes=axes, **NAMES)  # trap


def shapes_for_torchscript(path):
    shapes = ({1: "frames"}, ({1: "past_seq_0"}, {1: "past_seq_1"}))
    torch.onnx.export(Variadic().eval(), EXAMPLE, path, dynamo=False, dynamic_shapes=shapes, **NAMES)  # trap


def flat_shapes(path):
    shapes = ({1: "frames"}, {1: "past_seq_0"}, {1: "past_seq_1"})  # trap
    torch.onnx.export(Variadic().eval(), EXAMPLE, path, dynamo=True, dynamic_shapes=shapes, **NAMES)


def shapes_by_input_name(path):
    shapes = {"x": {1: "frames"}, "past_0": {1: "past_seq_0"}, "past_1": {1: "past_seq_1"}}  # trap
    torch.onnx.export(Variadic().eval(), EXAMPLE, path, dynamo=True, dynamic_shapes=shapes, **NAMES)


def nested_shapes(path):
    shapes = ({1: "frames"}, ({1: "past_seq_0"}, {1: "past_seq_1"}))
    torch.onnx.export(
        Variadic().eval(), EXAMPLE, path, dynamo=True, dynamic_shapes=shapes, external_data=False, **NAMES
    )


@caught_by("the graph against its module, each axis at lengths of its own")
def at_other_lengths(export: Callable[[Path], None], exporter: str) -> Outcome:
    """A demonstration: run the exported graph with every axis at lengths of its own. `export` knows its exporter."""
    cases = [
        {"x": row(x), "past_0": row(a, seed=1), "past_1": row(b, seed=2)}
        for x, a, b in ((3, 2, 2), (1, 0, 5), (9, 4, 7))
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.onnx"
        export(path)
        return compare(Variadic(), path, cases)


TRAPS = (
    Trap(
        name="too few input names",
        notes="4",
        naive=some_names,
        fix=every_name,
        demonstrate=at_other_lengths,
        exporters=("torchscript",),
        symptoms=("input", "lengths"),
        why="Inputs from `*args` without a name in `input_names` get names like `onnx::Concat_1`; `dynamic_axes` then"
        " speaks of inputs that are not there, which is a warning and no error. Name all of them.",
    ),
    Trap(
        name="a misspelt name in dynamic_axes",
        notes="4",
        naive=misspelt_axis,
        fix=every_name,
        demonstrate=at_other_lengths,
        exporters=("torchscript",),
        symptoms=("lengths",),
        why="A `UserWarning` among others, and the axis stays static. Make names and axes from one declaration, "
        "and run the graph at other lengths.",
    ),
    Trap(
        name="dynamic_axes with *args",
        notes="4",
        naive=axes_for_dynamo,
        fix=nested_shapes,
        demonstrate=at_other_lengths,
        exporters=("dynamo",),
        symptoms=("export",),
        why="This exporter knows `dynamic_shapes`. It translates `dynamic_axes` if each argument is one tensor, "
        "and fails at `*args`, which is one argument with many.",
        sources=("pytorch/pytorch#150940", "open-edge-platform/geti#5319"),
    ),
    Trap(
        name="dynamic_shapes for TorchScript",
        notes="4",
        naive=shapes_for_torchscript,
        fix=every_name,
        demonstrate=at_other_lengths,
        exporters=("torchscript",),
        symptoms=("export",),
        why="The older exporter knows `dynamic_axes` only.",
    ),
    Trap(
        name="dynamic_shapes, one for each tensor",
        notes="4",
        naive=flat_shapes,
        fix=nested_shapes,
        demonstrate=at_other_lengths,
        exporters=("dynamo",),
        symptoms=("export",),
        why="The shapes are nested as the arguments are: `x` is one entry, and all of `*past` is *one* entry, a tuple.",
    ),
    Trap(
        name="dynamic_shapes by input name",
        notes="4",
        naive=shapes_by_input_name,
        fix=nested_shapes,
        demonstrate=at_other_lengths,
        exporters=("dynamo",),
        symptoms=("export",),
        why="The keys are the names of the function's arguments, not those of the graph's inputs.",
    ),
)
