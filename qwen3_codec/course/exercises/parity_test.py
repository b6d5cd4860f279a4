"""The last exercise: a parity test of one's own, tried on ten graphs of which eight are wrong."""

import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...runtime.metrics import chunks
from ..pitfalls.graphs import raw_session
from .exercise import Case, Exercise, Wrong
from .play import normal

WINDOW = 4  # steps that attention looks at
LEAN = 0.3  # how much less a step counts for each step that it lies back
BIAS = 0.1
FRAMES, ROWS = 24, 2
CLOSE = 1e-5
FEW = 8  # frames within which every fault below shows


class Toy(nn.Module):
    """A codec of a few lines: a causal convolution, attention over a window, a transposed convolution.

    x [B, N] and the states: `past` [B, 2] samples, `kept` [B, 3] steps, `seen` [B, 1] of them real, `before` [B, 1],
    the last step that the upsampling saw. Gives [B, 2N]. The methods are there for others to get wrong.
    """

    def forward(self, x, past, kept, seen, before):
        joined = self.joined(past, x)
        steps = joined[:, 2:] + 0.5 * joined[:, 1:-1] - 0.25 * joined[:, :-2]
        every = torch.cat([kept, steps], dim=1)
        mixed = self.attend(steps, every, seen)
        waveform = self.upsample(mixed, before)
        after = self.next_past(joined, x), every[:, -(WINDOW - 1) :], self.count(seen, x), mixed[:, -1:]
        return self.end(waveform), *after

    def joined(self, past, x):
        return torch.cat([past, x], dim=1)

    def next_past(self, joined, x):
        return joined[:, -2:]

    def count(self, seen, x):
        return (seen + x.size(1)).clamp(max=WINDOW - 1)

    def distance(self, every, new, seen):
        places = torch.arange(every.size(1))
        return (places[every.size(1) - new.size(1) :, None] - places)[None]

    def real(self, every, new, seen):
        places = torch.arange(every.size(1))
        return (places >= every.size(1) - new.size(1) - seen)[:, None]

    def attend(self, new, every, seen):
        distance = self.distance(every, new, seen)
        scores = new[:, :, None] * every[:, None] - LEAN * distance
        visible = (distance >= 0) & (distance < WINDOW) & self.real(every, new, seen)
        scores = torch.where(visible, scores, torch.full((), -1e30))
        return (scores.softmax(dim=-1) @ every[:, :, None])[..., 0]

    def upsample(self, mixed, before):
        shifted = torch.cat([before, mixed], dim=1)[:, :-1]
        pairs = torch.stack([mixed + 0.5 * shifted, 0.5 * mixed - 0.25 * shifted], dim=2) + BIAS
        return pairs.reshape(mixed.size(0), -1)

    def end(self, waveform):
        return waveform


class OtherOrder(Toy):
    """Right: the same sums in another order."""

    def upsample(self, mixed, before):
        shifted = torch.cat([before, mixed], dim=1)[:, :-1]
        even, odd = BIAS + 0.5 * shifted + mixed, (BIAS - 0.25 * shifted) + 0.5 * mixed
        return torch.stack([even, odd], dim=2).reshape(mixed.size(0), -1)


class Clamps(Toy):
    """a clamp too many"""

    def end(self, waveform):
        return waveform.clamp(-1, 1)


class OffByOne(Toy):
    """a state off by one"""

    def next_past(self, joined, x):
        return torch.cat([joined[:, -2:-1], joined[:, -2:-1]], dim=1)


class BakedInLength(Toy):
    """a length baked in"""

    def attend(self, new, every, seen):
        steps = int(new.size(1))
        return torch.cat([super().attend(new, every, seen)[:, :steps], 0 * new[:, steps:]], dim=1)


class NewAlone(Toy):
    """a left context cut from the new samples alone"""

    def next_past(self, joined, x):
        return torch.cat([torch.zeros_like(joined[:, :2]), x], dim=1)[:, -2:]


class NoCount(Toy):
    """zeros taken for keys"""

    def real(self, every, new, seen):
        return super().real(every, new, torch.full_like(seen, WINDOW))


class Saturates(Toy):
    """positions that saturate"""

    def distance(self, every, new, seen):
        # As a post-RoPE cache has it: every call begins where the counter stands, the stored ones at their
        # own places.
        right = super().distance(every, new, seen)
        stored = torch.arange(every.size(1)) < every.size(1) - new.size(1)
        return right - torch.where(stored & (seen >= WINDOW - 1)[..., None], 1, 0)


class TrimmedBefore(Toy):
    """keys trimmed before attention"""

    def real(self, every, new, seen):
        places = torch.arange(every.size(1))
        return super().real(every, new, seen) & ((places >= every.size(1) - WINDOW) | (new.size(1) < 2))[None, None]


class BakedInBatch(Toy):
    """a batch baked in"""


# In an order that says nothing.
GRAPHS = (OffByOne, OtherOrder, Saturates, BakedInBatch, Clamps, Toy, NoCount, TrimmedBefore, BakedInLength, NewAlone)
RIGHT = (Toy, OtherOrder)
NAMES = ("x", "past", "kept", "seen", "before")


def zeros(batch: int) -> tuple[np.ndarray, ...]:
    """The states at the start."""
    floats = [np.zeros((batch, width), np.float32) for width in (2, WINDOW - 1, 1)]
    return floats[0], floats[1], np.zeros((batch, 1), np.int64), floats[2]


def sound() -> np.ndarray:
    """What goes in, [ROWS, FRAMES]: soft for five frames and then loud, so that a clamp does not show at once."""
    return (normal(ROWS, FRAMES, seed=5) * torch.where(torch.arange(FRAMES) < 5, 0.3, 2.0)).numpy()


def one_shot(x: np.ndarray) -> np.ndarray:
    """The right result [B, 2N], all at once, in plain numpy and without a state."""
    padded = np.pad(x, ((0, 0), (2, 0)))
    steps = padded[:, 2:] + 0.5 * padded[:, 1:-1] - 0.25 * padded[:, :-2]
    mixed = np.zeros_like(steps)
    for t in range(steps.shape[1]):
        first = max(0, t - WINDOW + 1)
        scores = np.exp(steps[:, t, None] * steps[:, first : t + 1] - LEAN * (t - np.arange(first, t + 1)))
        mixed[:, t] = (scores * steps[:, first : t + 1]).sum(axis=1) / scores.sum(axis=1)
    shifted = np.pad(mixed, ((0, 0), (1, 0)))[:, :-1]
    return np.stack([mixed + 0.5 * shifted, 0.5 * mixed - 0.25 * shifted], axis=2).reshape(len(x), -1) + BIAS


@cache
def graph(kind: type[Toy]) -> Callable:
    """The exported graph: `run(x, states) -> (y, states)`. It raises where ONNX Runtime refuses the input."""
    states = [f"next_{name}" for name in NAMES[1:]]
    axes = {name: {0: "batch"} for name in (*NAMES, "y", *states) if kind is not BakedInBatch}
    for name, axis in (("x", "frames"), ("y", "samples")):
        axes.setdefault(name, {})[1] = axis
    rows = 1 if kind is BakedInBatch else ROWS
    example = [normal(rows, 3), *map(torch.from_numpy, zeros(rows))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy.onnx"
        names = {"input_names": [*NAMES], "output_names": ["y", *states]}
        torch.onnx.export(
            kind().eval(), tuple(example), path, dynamo=False, opset_version=18, dynamic_axes=axes, **names
        )
        session = raw_session(path)

    def run(x, before):
        y, *after = session.run(["y", *states], dict(zip(NAMES, (x, *before), strict=True)))
        return y, tuple(after)

    return run


def shows(run: Callable, schedule: list[int]) -> bool:
    """Does this schedule show that the graph is wrong? Both rows at once, against the one-shot result."""
    x = sound()[:, : sum(schedule)]
    states, found = zeros(ROWS), []
    for part in chunks(x, schedule):
        try:
            y, states = run(part, states)
        except Exception:  # ONNX Runtime's exceptions share no narrower base class
            return True
        found.append(y)
    joined, wanted = np.concatenate(found, axis=1), one_shot(x)
    return joined.shape != wanted.shape or not np.abs(joined - wanted).max() <= CLOSE


def schedules(most: int = FEW) -> Iterator[list[int]]:
    """Every way to cut 1, 2, ... `most` frames into chunks, the shortest first."""
    for total in range(1, most + 1):
        for cuts in product((False, True), repeat=total - 1):
            lengths = [1]
            for cut in cuts:
                if cut:
                    lengths.append(1)
                else:
                    lengths[-1] += 1
            yield lengths


@cache
def shortest(kind: type[Toy]) -> int:
    """Frames of the shortest schedule that shows the fault; 0 for a graph that has none."""
    return next((sum(schedule) for schedule in schedules() if shows(graph(kind), schedule)), 0)


# ---- answers -------------------------------------------------------------------------------------


def refused_by(run, zeros, x, wanted, cuts=None, close=CLOSE):
    for schedule in cuts or schedules():
        states, place = zeros(len(x)), 0
        for length in schedule:
            try:
                y, states = run(x[:, place : place + length], states)
            except Exception:
                return schedule
            right = wanted[:, 2 * place : 2 * (place + length)]
            if y.shape != right.shape or not np.abs(y - right).max() <= close:
                return schedule
            place += length
    return None


def all_at_once(run, zeros, x, wanted):
    """It decodes everything in one call. States do nothing there, so wrong ones pass."""
    return refused_by(run, zeros, x, wanted, [[length] for length in range(1, FRAMES + 1)])


def ones_alone(run, zeros, x, wanted):
    """It cuts into chunks of one frame alone. What is wrong in longer chunks passes."""
    return refused_by(run, zeros, x, wanted, [[1] * length for length in range(1, FEW + 1)])


def one_row(run, zeros, x, wanted):
    """It plays one row. A batch baked in passes."""
    return refused_by(run, zeros, x[:1], wanted[:1], schedules())


def too_short(run, zeros, x, wanted):
    """It stops before the window is full and before the sound is loud. What shows later passes."""
    return refused_by(run, zeros, x, wanted, schedules(3))


def wants_every_bit(run, zeros, x, wanted):
    """It wants equality to the bit. Sums in another order differ in the last one, so right graphs are refused."""
    return refused_by(run, zeros, x, wanted, schedules(), close=0.0)


def the_longest(run, zeros, x, wanted):
    """It finds what is wrong, and names a long schedule: try short ones first."""
    return refused_by(run, zeros, x, wanted, sorted(schedules(), key=sum, reverse=True))


def parity_test_cases() -> list[Case]:
    x, wanted = sound(), one_shot(sound())

    def play(answer, kind):
        found = answer(graph(kind), zeros, x.copy(), wanted.copy())
        if found is None:
            return [np.asarray(_words(0))]
        schedule = [int(length) for length in found]
        if not shows(graph(kind), schedule):
            raise Wrong(f"refused by {schedule}, which shows nothing wrong")
        return [np.asarray(_words(sum(schedule)))]

    def case(number, kind):
        means = f"Graph {number} is {'right' if kind in RIGHT else f'wrong by {kind.__doc__}'}."
        wanted_words = np.asarray(_words(shortest(kind)))
        return Case(f"graph {number} of {len(GRAPHS)}", lambda a: play(a, kind), [wanted_words], means)

    return [case(number, kind) for number, kind in enumerate(GRAPHS, 1)]


def _words(frames: int) -> str:
    return f"refused by a schedule of {frames} frame{'s' * (frames > 1)}" if frames else "accepted"


PARITY_TEST = Exercise(
    name="parity test",
    notebook="12_capstones",
    solution=refused_by,
    cases=parity_test_cases,
    mistakes=(all_at_once, ones_alone, one_row, too_short, wants_every_bit, the_longest),
    hints=(
        "Which cuts, how many rows, how many frames does it take before each kind of fault can show?",
        "Try every way to cut 1, 2, ..., 8 frames into chunks, the shortest first, with both rows; an error "
        "of the graph "
        "refuses it too.",
    ),
    difficulty=3,
    minutes=20,
)
