"""What may explain that a graph could not be made, or that it is not right: for the error to cite."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from ...model.inspection.operations import Operations
from ...spec import SAMPLES
from ...streaming.session import StreamingModule
from .baked_in_axes import axes_of, find_baked_in_axes
from .capture import Diagnostic, captured
from .wording import TRACER, described, tells_of_a_loss

Arrays = Mapping[str, np.ndarray]


def complex_numbers(wrapper: StreamingModule, example: Arrays) -> list[str]:
    """The first operation that gives complex numbers, when `wrapper` runs on `example`; none, or one line."""
    operations = Operations()
    with suppress(Exception), captured(), torch.no_grad(), operations:  # what fails here has failed before, in words
        wrapper(*map(torch.from_numpy, example.values()))
    place = operations.complex
    return [f"{place} gives complex numbers; ONNX's operators take real ones alone"] if place else []


def warned(said: Sequence[Diagnostic]) -> list[str]:
    """What the tracer warned of, also where that is no reason to refuse a graph that is right."""
    return [*described([each for each in said if each.category == TRACER or tells_of_a_loss(each)])]


def baked_in_axes(wrapper: StreamingModule, graph: Path, example: Arrays, frames: Sequence[int]) -> list[str]:
    """The axes that do not follow to `frames`, each with the node where that shows first, if the graph runs at all."""
    spec, found = wrapper.spec, []
    with suppress(Exception):  # it explains an error, and must not replace it
        for axis, places in axes_of(spec).items():
            lengths = [n * (spec.samples_per_frame if axis == SAMPLES else 1) for n in frames]
            found += find_baked_in_axes(graph, wrapper, example, {axis: places}, lengths)
    return [f"baked-in axis: {axis}" for axis in found]
