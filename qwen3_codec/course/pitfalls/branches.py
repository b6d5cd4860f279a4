"""A Python `if` on a tensor, and a slice whose end is data."""

import torch
from torch import nn

from .graphs import in_graph, row
from .trap import BOTH_EXPORTERS, Outcome, Trap, caught_by

HELD_BACK = 2


class IfOnTensor(nn.Module):
    def forward(self, wav, is_last):
        if is_last > 0.5:  # trap
            return wav * 1
        return wav[:, :-HELD_BACK]


class WhereOnTensor(nn.Module):
    def forward(self, wav, is_last):
        total = torch.zeros(1, dtype=torch.int64) + wav.size(1)
        valid_samples = torch.where(is_last > 0.5, total, total - HELD_BACK)
        return wav * 1, valid_samples


class EndAsNumber(nn.Module):
    def forward(self, wav, valid):
        return wav[:, 1 : int(valid)]  # trap


class EndAsTensor(nn.Module):
    def forward(self, wav, valid):
        return wav[:, 1 : valid[0]]  # trap


class StartAlone(nn.Module):
    def forward(self, wav, valid):
        return wav[:, 1:], valid - 1


def _case(length: int, name: str, value: float, dtype=torch.float32):
    return {"wav": row(length), name: torch.tensor([value], dtype=dtype)}


_LAST = [_case(6, "is_last", 0), _case(6, "is_last", 1), _case(9, "is_last", 1)]
_VALID = [_case(6, "valid", 4, torch.int64), _case(6, "valid", 5, torch.int64)]


@caught_by("two calls with inputs of the same shapes: do the outputs have one shape?")
def output_lengths_from_shapes_alone(step: type[nn.Module], exporter: str) -> Outcome:
    """Two calls with inputs of the same shapes: does the first output have one shape? The error is the difference."""
    graph = in_graph(_VALID[0], _VALID)(step, exporter)
    module = step()
    results = [module(*case.values()) for case in _VALID]
    lengths = [(result[0] if isinstance(result, tuple) else result).shape[1] for result in results]
    words = f"same input shapes, output lengths {lengths[0]} and {lengths[1]}"
    first = "the second call, with another value of the same shape"
    return Outcome(max(graph.error, abs(lengths[0] - lengths[1])), f"{words}\n{graph.text}", first, graph.cases)


TRAPS = (
    Trap(
        name="if on a tensor",
        notes="1",
        naive=IfOnTensor,
        fix=WhereOnTensor,
        demonstrate=in_graph(_LAST[0], _LAST),
        exporters=BOTH_EXPORTERS,
        symptoms=("end", "input"),
        why="TorchScript's exporter runs the module once and keeps the branch that this run took. Nothing depends on "
        "`is_last` any more, so the input leaves the graph; the only sign is a warning, which names the line and stops "
        "nothing. dynamo follows the code for any value, and this code has two ways to go, so it refuses, which is "
        "the better outcome. `torch.where` computes both sides and chooses in the graph.",
        sources=("pytorch/pytorch#143222",),
    ),
    Trap(
        name="the end of a slice as a Python number",
        notes="1",
        naive=EndAsNumber,
        fix=StartAlone,
        demonstrate=in_graph(_VALID[0], _VALID),
        exporters=BOTH_EXPORTERS,
        symptoms=("end", "lengths"),
        why="`int()` takes the value out of the graph: a trace keeps the example's end as a constant. Slice at the "
        "start alone, whose place is known from shapes, and return how many samples are valid.",
        sources=("yakhyo/face-parsing#7",),
    ),
    Trap(
        name="the end of a slice as a tensor",
        notes="1",
        naive=EndAsTensor,
        fix=StartAlone,
        demonstrate=output_lengths_from_shapes_alone,
        exporters=BOTH_EXPORTERS,
        symptoms=("end",),
        why="In a trace the values are right, but the output's length depends on data: an engine that plans its "
        "buffers from shapes (TensorRT does) cannot size it. With `wav[:, start:]` the shapes say all, and "
        "`valid_samples` says where to cut.",
    ),
)
