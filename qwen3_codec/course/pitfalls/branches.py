"""A Python `if` on a tensor, and a slice whose end is data."""

import torch
from torch import nn

from .graphs import converted, in_graph, row
from .trap import Outcome, Raises, Says, Trap, Wrong

HELD_BACK = 2


class IfOnTensor(nn.Module):
    def forward(self, wav, is_last):
        if is_last > 0.5:
            return wav * 1
        return wav[:, :-HELD_BACK]


class WhereOnTensor(nn.Module):
    def forward(self, wav, is_last):
        total = torch.zeros(1, dtype=torch.int64) + wav.size(1)
        valid_samples = torch.where(is_last > 0.5, total, total - HELD_BACK)
        return wav * 1, valid_samples


class EndAsNumber(nn.Module):
    def forward(self, wav, valid):
        return wav[:, 1 : int(valid)]


class EndAsTensor(nn.Module):
    def forward(self, wav, valid):
        return wav[:, 1 : valid[0]]


class StartAlone(nn.Module):
    def forward(self, wav, valid):
        return wav[:, 1:], valid - 1


def _case(length: int, name: str, value: float, dtype=torch.float32):
    return {"wav": row(length), name: torch.tensor([value], dtype=dtype)}


_LAST = [_case(6, "is_last", 0), _case(6, "is_last", 1), _case(9, "is_last", 1)]
_VALID = [_case(6, "valid", 4, torch.int64), _case(6, "valid", 5, torch.int64)]


def output_lengths_from_shapes_alone(step: type[nn.Module]) -> Outcome:
    """Two calls with inputs of the same shapes: does the first output have one shape? The error is the difference."""
    graph = in_graph("torchscript", _VALID[0], _VALID)(step)
    module = step()
    results = [module(*case.values()) for case in _VALID]
    lengths = [(result[0] if isinstance(result, tuple) else result).shape[1] for result in results]
    words = f"same input shapes, output lengths {lengths[0]} and {lengths[1]}"
    return Outcome(max(graph.error, abs(lengths[0] - lengths[1])), f"{words}\n{graph.text}")


TRAPS = (
    Trap(
        name="if on a tensor, torchscript",
        notes="1",
        naive=IfOnTensor,
        fix=WhereOnTensor,
        demonstrate=in_graph("torchscript", _LAST[0], _LAST),
        today=Wrong(at_least=float("inf")),
        why="The trace runs the module once and keeps the side that this run took. Nothing depends on `is_last` any "
        "more, so the input leaves the graph. The only sign is a warning, which names the line and stops nothing. "
        "`torch.where` computes both sides and chooses in the graph.",
        warns=(converted("boolean"),),
    ),
    Trap(
        name="if on a tensor, dynamo",
        notes="1",
        naive=IfOnTensor,
        fix=WhereOnTensor,
        demonstrate=in_graph("dynamo", _LAST[0], _LAST),
        today=Raises(torch.onnx.OnnxExporterError, "GuardOnDataDependentSymNode"),
        why="`torch.export` follows the code for any value of the inputs, and this code has two ways to go. The same "
        "`torch.where` passes.",
        warns=(
            Says("WARNING", r"Unable to find user code corresponding to \{u0\}"),
            Says("stderr", r"def forward\(self, arg0_1"),
        ),
    ),
    Trap(
        name="an end of a slice as a number",
        notes="1",
        naive=EndAsNumber,
        fix=StartAlone,
        demonstrate=in_graph("torchscript", _VALID[0], _VALID),
        today=Wrong(at_least=float("inf")),
        why="`int()` takes the value out of the graph: the example's end is kept for ever, and a warning is all that "
        "says so. Cut at the start alone, whose place is known from shapes, and return how many samples are valid.",
        warns=(converted("integer"),),
    ),
    Trap(
        name="an end of a slice as a tensor",
        notes="1",
        naive=EndAsTensor,
        fix=StartAlone,
        demonstrate=output_lengths_from_shapes_alone,
        today=Wrong(at_least=1),
        why="The values are right, but the output's length depends on data: an engine that plans its buffers from "
        "shapes (TensorRT does) cannot size it. With `wav[:, start:]` the shapes say all, and `valid_samples` "
        "says where to cut.",
    ),
)
