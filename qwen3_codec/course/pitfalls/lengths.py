"""Lengths that become constants, each beside the code that stays symbolic, under both exporters."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from ...exporting.diagnostics import captured
from ...exporting.tracing import EXPORTERS
from .graphs import compare, converted, in_graph, row
from .trap import REFUSED, RIGHT, WRONG, Outcome, Says, Trap, Wrong, signals

MOST = 8


class IntOfSize(nn.Module):
    def forward(self, x):
        return x + torch.zeros(1, int(x.size(1)))


class BareSize(nn.Module):
    def forward(self, x):
        return x + torch.zeros(1, x.size(1))


class FloatOfSize(nn.Module):
    def forward(self, x):
        return x / float(x.size(1))


class ZerosPlusSize(nn.Module):
    def forward(self, x):
        return x / (torch.zeros(1) + x.size(1))


class CeilOfSize(nn.Module):
    def forward(self, x):
        return F.pad(x, (0, math.ceil(x.size(1) / 4) * 4 - x.size(1)))


class WholeArithmetic(nn.Module):
    def forward(self, x):
        return F.pad(x, (0, (x.size(1) + 3) // 4 * 4 - x.size(1)))


class MinOfSize(nn.Module):
    def forward(self, x):
        return x[:, : min(x.size(1), MOST)]


class SliceEnd(nn.Module):
    def forward(self, x):
        return x[:, :MOST]


class IfOnSize(nn.Module):
    def forward(self, x):
        if x.size(1) > MOST:
            x = x[:, -MOST:]
        return x * 1


class NegativeSlice(nn.Module):
    def forward(self, x):
        return x[:, -MOST:] * 1


class RangeOfSize(nn.Module):
    def forward(self, x):
        total = torch.zeros(1)
        for i in range(x.size(1)):
            total = total + x[:, i]
        return total


class SumOverAxis(nn.Module):
    def forward(self, x):
        return x.sum(1)


class MaxOfSize(nn.Module):
    def forward(self, x, past):
        joined = torch.cat([past, x], 1)
        return joined[:, max(0, past.size(1) - 1) :]


class LastOfPast(nn.Module):
    def forward(self, x, past):
        return torch.cat([past[:, -1:], x], 1)


@dataclass(frozen=True)
class Length:
    """One way to freeze a length, and its export-safe rewrite.

    `frozen_by` are the exporters that fall for it today, with the least error that this gives (inf: a wrong shape, or a
    graph that refuses other lengths); `warns` is what an exporter says of it; `past` says that the step has a second
    input, the past.
    """

    name: str
    naive: type[nn.Module]
    fix: type[nn.Module]
    frozen_by: dict[str, float]
    why: str
    warns: dict[str, tuple[Says, ...]] = field(default_factory=dict)
    past: bool = False

    def demonstration(self, exporter: str):
        """Made with a length of 5; run with shorter and longer ones, an empty past among them."""
        return in_graph(exporter, self.example, self.cases)

    @property
    def example(self) -> dict[str, torch.Tensor]:
        return self.cases[2]

    @property
    def cases(self) -> list[dict[str, torch.Tensor]]:
        if self.past:
            return [{"x": row(n), "past": row(p, seed=1)} for n, p in ((2, 0), (1, 1), (5, 3), (3, 9))]
        return [{"x": row(n)} for n in (1, 2, 5, 9, 12)]


INF = float("inf")
LENGTHS = (
    Length(
        "int()",
        IntOfSize,
        BareSize,
        {"torchscript": INF, "dynamo": INF},
        "`int()` of a size is a Python number. The trace writes it down; `torch.export` makes the whole axis static, "
        "although it was declared dynamic. A bare `size()` stays symbolic.",
        {"torchscript": (converted("integer"),)},
    ),
    Length(
        "float()",
        FloatOfSize,
        ZerosPlusSize,
        {"torchscript": 0.1, "dynamo": INF},
        "As `int()`, but in a trace no shape is wrong: the samples are, and that is all. (Dynamo makes the axis "
        "static.) A zero tensor plus the size is a tensor in the graph.",
        {"torchscript": (converted("float"),)},
    ),
    Length(
        "math.ceil",
        CeilOfSize,
        WholeArithmetic,
        {"torchscript": INF},
        "`math.ceil` of a division is a Python number in a trace (`torch.export` knows the function). Whole-number "
        "arithmetic on sizes stays symbolic in both.",
        {"torchscript": (converted("float"),)},
    ),
    Length(
        "min()",
        MinOfSize,
        SliceEnd,
        {"torchscript": INF},
        "`min` compares, and a comparison in a trace is decided once. A slice clips by itself.",
        {"torchscript": (converted("boolean"),)},
    ),
    Length(
        "max()",
        MaxOfSize,
        LastOfPast,
        {"torchscript": INF, "dynamo": INF},
        "With an example whose past is not empty, both exporters take `past - 1` for the larger number. With an empty "
        "past the start becomes -1, the last sample: the first call of every stream is wrong. TorchScript's exporter "
        "warns, dynamo does not.",
        {"torchscript": (converted("boolean"),)},
        past=True,
    ),
    Length(
        "if",
        IfOnSize,
        NegativeSlice,
        {"torchscript": INF, "dynamo": INF},
        "The branch is decided by the example, under `torch.export` as well, which does not even warn. A negative "
        "slice does the same without a branch.",
        {"torchscript": (converted("boolean"),)},
    ),
    Length(
        "range()",
        RangeOfSize,
        SumOverAxis,
        {"torchscript": INF, "dynamo": INF},
        "A Python loop is unrolled as often as the example asks for, and neither exporter warns. Use an operation over "
        "the axis.",
    ),
)


@dataclass(frozen=True)
class Verdict:
    """At how many of the lengths tried a graph of the naive code is right, wrong without an error, or refuses to run.

    `warns` are the categories of what was said of the naive code. `fix` is at how many lengths the graph of its
    export-safe rewrite is right; all in all there are `lengths`.
    """

    name: str
    exporter: str
    right: int
    wrong: int
    refused: int
    fix: int
    lengths: int
    warns: tuple[str, ...] = ()


def verdicts() -> list[Verdict]:
    """Every way to freeze a length under both exporters, measured now."""
    found = []
    for length in LENGTHS:
        for exporter in EXPORTERS:
            with captured() as said:
                naive = length.demonstration(exporter)(length.naive).cases
            warns = tuple(dict.fromkeys(each.category for each in signals(said)))
            with captured() as said:
                fix = length.demonstration(exporter)(length.fix).cases
            counts = [naive.count(verdict) for verdict in (RIGHT, WRONG, REFUSED)]
            found.append(Verdict(length.name, exporter, *counts, fix.count(RIGHT), len(fix), warns))
    return found


class Joined(nn.Module):
    def forward(self, x, past):
        return torch.cat([past, x], 1)


def example_exported(make: Callable[[], dict[str, torch.Tensor]]) -> Outcome:
    """A demonstration: through `torch.export` with `Dim.AUTO`, which makes dynamic what can be, then to ONNX."""
    example = make()
    auto = {name: {1: torch.export.Dim.AUTO} for name in example}
    program = torch.export.export(Joined(), tuple(example.values()), dynamic_shapes=auto)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.onnx"
        names = {"input_names": list(example)}
        torch.onnx.export(program, (), path, dynamo=True, external_data=False, verbose=False, **names)
        return compare(Joined(), path, [{"x": row(n), "past": row(p)} for n, p in ((1, 2), (3, 2), (5, 4))])


def example_of_one():
    return {"x": row(1), "past": row(2)}


def example_of_three():
    return {"x": row(3), "past": row(2)}


TRAPS = (
    *(
        Trap(
            name=f"{length.name} on a length, {exporter}",
            notes="5",
            naive=length.naive,
            fix=length.fix,
            demonstrate=length.demonstration(exporter),
            today=Wrong(at_least=error),
            why=length.why,
            warns=length.warns.get(exporter, ()),
        )
        for length in LENGTHS
        for exporter, error in length.frozen_by.items()
    ),
    Trap(
        name="an example of length 1",
        notes="5",
        naive=example_of_one,
        fix=example_of_three,
        demonstrate=example_exported,
        today=Wrong(at_least=INF),
        why="`torch.export` takes a length of 0 or 1 in the example for a constant, since both mean something else to "
        "broadcasting; one line of its log says so. Give every dynamic axis at least 2.",
        warns=(Says("WARNING", r"dimension inputs\['x'\]\.shape\[1\] 0/1 specialized"),),
        sources=("pytorch/pytorch#151582",),
    ),
)
