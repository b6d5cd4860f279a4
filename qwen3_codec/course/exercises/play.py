"""Ways to try an answer: as a stream in chunks, as two streams in turn, as a graph from either exporter."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...runtime.metrics import chunk_lengths
from ..pitfalls.graphs import export_step, raw_session, run_with
from .exercise import Case, Wrong

SCHEDULES = {"all at once": (40,), "chunks of 12": (12,), "chunks of 3": (3,), "chunks of 7, 1, 2": (7, 1, 2)}
SCHEDULES |= {"chunks of 1": (1,)}
KEPT = (
    "In PyTorch it is right: the graph kept something of its example, a length, a branch or a number that Python made."
)
REMEMBERS = "The answer remembers something by itself. All that it remembers must go in and come out."


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Seeded normal values."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pieces(x: torch.Tensor, schedule: Sequence[int], axis: int) -> Sequence[torch.Tensor]:
    """`x` cut along `axis` by `schedule`, which repeats; the last one is what is left."""
    return x.split([*chunk_lengths(x.size(axis), schedule)], dim=axis)


def streamed(step: Callable, x: torch.Tensor, state: Sequence, schedule: Sequence[int], axis: int = -1) -> torch.Tensor:
    """`step(part, *state) -> (y, *state)` over the parts of `x`; the results joined along `axis`."""
    found = []
    for part in pieces(x, schedule, axis):
        y, *state = result_of(step(part, *state), 1 + len(state))
        found.append(y)
    return torch.cat(found, dim=axis)


def result_of(result, count: int | None = None) -> Sequence:
    """A step's result, which must be `count` tensors (None: any number of them)."""
    result = result if isinstance(result, tuple | list) else (result,)
    if len(result) != (count or len(result)):
        raise Wrong(f"{len(result)} tensors came back, must be {count}")
    if odd := [type(part).__name__ for part in result if not isinstance(part, torch.Tensor)]:
        raise Wrong(f"a plain {odd[0]} came back, must be a tensor")
    return result


def in_turn(step: Callable, x: torch.Tensor, state: Sequence, schedule: Sequence[int], axis: int = -1) -> torch.Tensor:
    """Two streams whose calls alternate, the second of `-x`: what the first gives."""
    states, found = [list(state), list(state)], []
    for part in pieces(x, schedule, axis):
        for index, signed in enumerate((part, -part)):
            y, *states[index] = result_of(step(signed, *states[index]), 1 + len(state))
            if index == 0:
                found.append(y)
    return torch.cat(found, dim=axis)


def stream_cases(
    label: str, make_step: Callable, x: torch.Tensor, state: Sequence, wanted, axis: int = -1
) -> list[Case]:
    """`make_step(answer)` streamed over every schedule, and in turn with another stream; `wanted` is the one-shot
    result.
    """
    where = f"{label}, " if label else ""
    cases = [
        Case(where + words, lambda a, cut=cut: [streamed(make_step(a), x, state, cut, axis)], [wanted])
        for words, cut in SCHEDULES.items()
    ]
    turn = Case(
        f"{where}two streams in turn", lambda a: [in_turn(make_step(a), x, state, (3,), axis)], [wanted], REMEMBERS
    )
    return [*cases, turn]


class Step(nn.Module):
    """A function as a module, which is what exporters take."""

    def __init__(self, function: Callable):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def graph_of(function: Callable, example: Mapping[str, torch.Tensor], exporter: str = "torchscript") -> Callable:
    """The exported function: feeds {name: tensor} -> list of arrays. Axis 1 of what has two axes stays dynamic."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answer.onnx"
        # Unnamed: named dimensions of two inputs may not turn out to be equal.
        export_step(Step(function), example, path, exporter, dimension=lambda _: torch.export.Dim.DYNAMIC)
        session = raw_session(path)
    return lambda feeds: run_with(session, {name: feeds[name].numpy() for name in example})


def graph_cases(function: Callable, right: Callable, example: Mapping, feeds: Sequence[Mapping]) -> list[Case]:
    """`function(answer)` on each of `feeds` as it is, then as a graph of either exporter; `right` is what is wanted.

    The graph is made with `example` and run with the others.
    """
    graph = cache(lambda answer, exporter: graph_of(function(answer), example, exporter))
    cases = []
    for feed in feeds:
        wanted, lengths = result_of(right(*feed.values())), _in_words(feed)
        cases += [
            Case(f"in PyTorch, {lengths}", lambda a, f=feed: result_of(function(a)(*f.values())), wanted),
            Case(f"graph of torchscript, {lengths}", lambda a, f=feed: graph(a, "torchscript")(f), wanted, KEPT),
            Case(f"graph of dynamo, {lengths}", lambda a, f=feed: graph(a, "dynamo")(f), wanted, KEPT, slow=True),
        ]
    return cases


def _in_words(feed: Mapping[str, torch.Tensor]) -> str:
    return ", ".join(f"{n} {t.size(1)} long" if t.ndim == 2 else f"{n} {t.item():g}" for n, t in feed.items())


def numbers(*values) -> list[np.ndarray]:
    """Plain numbers as arrays."""
    return [np.asarray(value) for value in values]
