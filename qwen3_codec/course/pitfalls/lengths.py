"""Lengths baked in as constants, each beside the code that stays symbolic, under both exporters."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from .graphs import compare, export_step, in_graph, row
from .trap import BOTH_EXPORTERS, Outcome, Trap, caught_by

MOST = 8


class IntOfSize(nn.Module):
    def forward(self, x):
        return x + torch.zeros(1, int(x.size(1)))  # trap


class BareSize(nn.Module):
    def forward(self, x):
        return x + torch.zeros(1, x.size(1))


class FloatOfSize(nn.Module):
    def forward(self, x):
        return x / float(x.size(1))  # trap


class ZerosPlusSize(nn.Module):
    def forward(self, x):
        return x / (torch.zeros(1) + x.size(1))


class CeilOfSize(nn.Module):
    def forward(self, x):
        return F.pad(x, (0, math.ceil(x.size(1) / 4) * 4 - x.size(1)))  # trap


class IntegerArithmetic(nn.Module):
    def forward(self, x):
        return F.pad(x, (0, (x.size(1) + 3) // 4 * 4 - x.size(1)))


class MinOfSize(nn.Module):
    def forward(self, x):
        return x[:, : min(x.size(1), MOST)]  # trap


class SliceEnd(nn.Module):
    def forward(self, x):
        return x[:, :MOST]


class IfOnSize(nn.Module):
    def forward(self, x):
        if x.size(1) > MOST:  # trap
            x = x[:, -MOST:]
        return x * 1


class NegativeSlice(nn.Module):
    def forward(self, x):
        return x[:, -MOST:] * 1


class RangeOfSize(nn.Module):
    def forward(self, x):
        total = torch.zeros(1)
        for i in range(x.size(1)):  # trap
            total = total + x[:, i]
        return total


class SumOverAxis(nn.Module):
    def forward(self, x):
        return x.sum(1)


class MaxOfSize(nn.Module):
    def forward(self, x, past):
        joined = torch.cat([past, x], 1)
        return joined[:, max(0, past.size(1) - 1) :]  # trap


class LastOfPast(nn.Module):
    def forward(self, x, past):
        return torch.cat([past[:, -1:], x], 1)


# Made with a length of 5, run with shorter and longer ones, an empty past among them.
CASES = [{"x": row(n)} for n in (1, 2, 5, 9, 12)]
EXAMPLE = CASES[2]
CASES_WITH_PAST = [{"x": row(n), "past": row(p, seed=1)} for n, p in ((2, 0), (1, 1), (5, 3), (3, 9))]
EXAMPLE_WITH_PAST = CASES_WITH_PAST[2]


class Joined(nn.Module):
    def forward(self, x, past):
        return torch.cat([past, x], 1)


@caught_by("the graph against its module, at other lengths and values than the example's")
def example_exported(make: Callable[[], dict[str, torch.Tensor]], exporter: str) -> Outcome:
    """A demonstration: TorchScript's exporter, or `torch.export` with `Dim.AUTO`, which makes dynamic what can be."""
    example = make()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.onnx"
        if exporter == "torchscript":
            export_step(Joined(), example, path, exporter)
        else:
            auto = {name: {1: torch.export.Dim.AUTO} for name in example}
            program = torch.export.export(Joined(), tuple(example.values()), dynamic_shapes=auto)
            names = {"input_names": list(example)}
            torch.onnx.export(program, (), path, dynamo=True, external_data=False, verbose=False, **names)
        return compare(Joined(), path, [{"x": row(n), "past": row(p)} for n, p in ((1, 2), (3, 2), (5, 4))])


def example_of_one():
    return {"x": row(1), "past": row(2)}  # trap


def example_of_three():
    return {"x": row(3), "past": row(2)}


def on_a_length(name: str, naive: type[nn.Module], fix: type[nn.Module], why: str, **fields) -> Trap:
    """A trap of a length that becomes a Python value, with its export-safe rewrite."""
    demonstrate = fields.pop("demonstrate", in_graph(EXAMPLE, CASES))
    return Trap(
        f"{name} on a length", naive, fix, demonstrate, why, notes="5", exporters=BOTH_EXPORTERS,
        symptoms=fields.pop("symptoms", ("lengths",)), **fields,
    )  # fmt: skip


TRAPS = (
    on_a_length(
        "int()",
        IntOfSize,
        BareSize,
        "`int()` of a size is a Python number. The trace writes it down; `torch.export` makes the whole axis static, "
        "although it was declared dynamic. A bare `size()` stays symbolic.",
        sources=("yakhyo/face-parsing#7", "idiap/coqui-ai-TTS#390"),
    ),
    on_a_length(
        "float()",
        FloatOfSize,
        ZerosPlusSize,
        "As `int()`, but in a trace no shape is wrong: the values are, and that is all. (dynamo makes the axis "
        "static.) A zero tensor plus the size is a tensor in the graph.",
        symptoms=("factor", "lengths"),
    ),
    on_a_length(
        "math.ceil",
        CeilOfSize,
        IntegerArithmetic,
        "`math.ceil` of a division is a Python number in a trace (`torch.export` knows the function). Integer "
        "arithmetic on sizes stays symbolic in both.",
    ),
    on_a_length(
        "min()",
        MinOfSize,
        SliceEnd,
        "`min` compares, and a comparison in a trace is decided once. A slice clips by itself.",
    ),
    on_a_length(
        "max()",
        MaxOfSize,
        LastOfPast,
        "With an example whose past is not empty, both exporters take `past - 1` for the larger number. With an empty "
        "past the start becomes -1, the last sample: the first call of every stream is wrong.",
        demonstrate=in_graph(EXAMPLE_WITH_PAST, CASES_WITH_PAST),
        symptoms=("start", "lengths"),
    ),
    on_a_length(
        "if",
        IfOnSize,
        NegativeSlice,
        "The example decides which branch is exported, under `torch.export` as well. A negative slice does the same "
        "without a branch.",
    ),
    on_a_length(
        "range()",
        RangeOfSize,
        SumOverAxis,
        "A Python loop is unrolled as often as the example asks for. Use an operation over the axis.",
        symptoms=("factor", "lengths"),
    ),
    Trap(
        name="an example of length 1",
        notes="5",
        naive=example_of_one,
        fix=example_of_three,
        demonstrate=example_exported,
        exporters=BOTH_EXPORTERS,
        symptoms=("lengths",),
        why="`torch.export` takes a length of 0 or 1 in the example for a constant, since both mean something else to "
        "broadcasting; one line of its log says so. Give every dynamic axis at least 2.",
        sources=("pytorch/pytorch#151582",),
    ),
)
