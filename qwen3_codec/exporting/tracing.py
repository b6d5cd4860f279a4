"""From a wrapper to an ONNX graph: one run of it, or its code with symbolic sizes, under the names of its spec."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import Parameter, signature
from typing import Any, cast

import numpy as np
import torch

from ..spec import SAMPLES, StateSpec
from ..streaming.session import StreamingModule
from .diagnostics.capture import Diagnostic, captured, is_advice
from .diagnostics.causes import complex_numbers, warned
from .diagnostics.wording import gist, where_it_stopped

# What each exporter is, and the opsets that it was tested to write.
OPSETS = {"torchscript": range(14, 24), "dynamo": range(18, 25)}
EXPORTERS = tuple(OPSETS)
OPSET = 18


class ExportError(RuntimeError):
    """A graph that could not be made, or is not right; no file is written."""


def trace(wrapper: StreamingModule, path: str | os.PathLike, exporter: str, opset: int = OPSET) -> list[Diagnostic]:
    """`torch.onnx.export` with every input, output and dynamic axis named from `wrapper.spec`; no checks.

    The example has at least 2 on every dynamic axis, each with a length of its own: `torch.export` takes a length of 0
    or 1 for a constant, and two equal lengths for one. Returns what the exporter says and does not say of every graph.
    Where it gives up, raises ExportError with the gist; the whole report is that error's `__context__`.
    """
    spec = wrapper.spec
    inputs, outputs, example = spec.all_inputs, spec.all_outputs, example_inputs(spec)
    options: dict[str, Any] = {"opset_version": opset}
    options |= {"input_names": [t.name for t in inputs], "output_names": [t.name for t in outputs]}
    if exporter == "torchscript":
        axes = {tensor.name: tensor.dynamic_axes for tensor in [*inputs, *outputs] if tensor.dynamic_axes}
        options |= {"dynamo": False, "dynamic_axes": axes}
    else:
        options |= {"dynamo": True, "dynamic_shapes": _nested_shapes(wrapper), "external_data": False, "verbose": False}
        options["custom_translation_table"] = getattr(wrapper, "translations", None)
    try:
        with torch.no_grad(), _modes_kept(wrapper), captured() as said:
            arrays = tuple(map(torch.from_numpy, example.values()))
            torch.onnx.export(cast(torch.nn.Module, wrapper), arrays, path, **options)
    except Exception as error:  # of many kinds, with a report of up to thousands of lines
        place = where_it_stopped(error, said)
        cause = complex_numbers(wrapper, example) or [f"{place}: {gist(error)}" if place else gist(error)]
        causes = [*cause, *warned(said)]
        raise ExportError(f"the exporter {exporter} gives up: {'; '.join(causes)}") from None
    return [each for each in said if not is_advice(each)]


@contextmanager
def _modes_kept(wrapper: StreamingModule) -> Iterator[None]:
    """A trace leaves all that is inside in the mode of the outermost module, which is training mode in a new one."""
    modes = [(module, module.training) for module in wrapper.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _nested_shapes(wrapper: StreamingModule) -> tuple[Any, ...]:
    """`dynamic_shapes` for `forward(self, a, b, ..., *past)`: an entry an argument, one tuple for all of `*past`."""
    shapes = [tensor.dynamic_axes for tensor in wrapper.spec.all_inputs]
    kinds = [parameter.kind for parameter in signature(wrapper.forward).parameters.values()]
    if Parameter.VAR_POSITIONAL not in kinds:
        return tuple(shapes)
    fixed = kinds.index(Parameter.VAR_POSITIONAL)
    return (*shapes[:fixed], tuple(shapes[fixed:]))


def example_inputs(spec: StateSpec) -> dict[str, np.ndarray]:
    """Inputs to trace with, {name: array}."""
    axes = dict.fromkeys(axis for tensor in spec.all_inputs for axis in tensor.dynamic_axes.values())
    past = [axis for axis in axes if axis.startswith("past_seq")]
    lengths = {axis: 2 + i for i, axis in enumerate(axis for axis in axes if axis not in past)}
    lengths |= {axis: lengths[axis] * spec.samples_per_frame for axis in lengths if axis == SAMPLES}
    lengths |= dict.fromkeys(past, 2 + len(lengths))
    return random_inputs(spec, lengths)


def random_inputs(
    spec: StateSpec, lengths: dict[str, int], is_last: bool = False, seed: int = 0
) -> dict[str, np.ndarray]:
    """Codes and a state of normal values with `lengths` on the dynamic axes, {name: array}."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for tensor in spec.all_inputs:
        shape = tensor.with_lengths(lengths)
        if tensor.name == "audio_codes":
            arrays[tensor.name] = rng.integers(spec.codebook_size, size=shape)
        elif tensor.name == "is_last":
            arrays[tensor.name] = np.full(shape, is_last, tensor.dtype)
        elif tensor.dtype == "int64":
            arrays[tensor.name] = rng.integers(spec.limits[tensor.name] + 1, size=shape)
        else:
            arrays[tensor.name] = rng.standard_normal(shape).astype(tensor.dtype)
    return arrays
