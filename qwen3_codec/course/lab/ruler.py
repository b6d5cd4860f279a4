"""A KV cache as a ruler: at which position RoPE rotates each key of a call, for the ways in which caches store them.

As in `plots` and `schematics`, the figures are drawn from numbers: those of a cache that is followed call by call.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .plots.style import fitted, legend_below, panels, styled
from .schematics import MIDDLE

PRE_ROPE = "pre-RoPE: rotated in each call, positions from the oldest key kept"
ABSOLUTE = "post-RoPE: rotated once, at the frame's own number"
FROM_LENGTH = "post-RoPE: rotated once, at positions from the cache's length"
STORED, NEW, WRONG = "stored key", "key of this call", "at a wrong distance from the newest"
STYLES = {STORED: ("#e3e9f2", ""), NEW: ("#8fbc8f", ".."), WRONG: ("#f2b8a0", "//")}


@dataclass(frozen=True)
class Call:
    """The keys that one call attends to, the oldest first: each one's frame in the stream, and its RoPE position."""

    frames: list[int]
    positions: list[int]
    new: int

    def distances(self, window: int) -> tuple[list[int], list[int]]:
        """(true, as RoPE sees them) distances from the newest query to the keys that it may look at, the nearest
        first.
        """
        keys = [*zip(self.frames, self.positions, strict=True)][::-1][:window]
        return [keys[0][0] - frame for frame, _ in keys], [keys[0][1] - position for _, position in keys]


def calls(store: str, window: int, chunk: int, count: int) -> list[Call]:
    """A call that fills the window, then `count` calls of `chunk` frames; a window of keys is kept between them."""
    found = [Call([*range(window)], [*range(window)], window)]
    for _ in range(count):
        frames, positions = found[-1].frames[-window:], found[-1].positions[-window:]
        first = frames[-1] + 1
        frames += range(first, first + chunk)
        if store == PRE_ROPE:
            positions = [*range(len(frames))]
        else:
            start = first if store == ABSOLUTE else len(positions)
            positions += range(start, start + chunk)
        found.append(Call(frames, positions, chunk))
    return found


@styled
def sliding(window: int, chunk: int, count: int, title: str) -> Figure:
    """The keys of each call at their frames of the stream, and in each the position at which RoPE rotates it."""
    stores = (PRE_ROPE, ABSOLUTE, FROM_LENGTH)
    figure, rows = panels(6.4, len(stores), sharex=True)
    figure.suptitle(fitted(title, figure))
    for axes, store in zip(rows, stores, strict=True):
        found = calls(store, window, chunk, count)
        for row, call in enumerate(found):
            _draw(axes, row, call, window)
        axes.set_yticks(range(len(found)), [f"call {row + 1}" for row in range(len(found))])
        axes.set_ylim(len(found) - 0.45, -0.55)
        axes.set_title(store, loc="left")
    rows[-1].set_xlabel("frame of the stream (number in a box: the position at which RoPE rotates its key)")
    patches = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="black", label=k) for k, (colour, hatch) in STYLES.items()
    ]
    legend_below(rows[-1], 3, patches)
    return figure


def _draw(axes: Axes, row: int, call: Call, window: int) -> None:
    wrong = {call.frames[-1] - true for true, seen in zip(*call.distances(window), strict=True) if true != seen}
    for place, (frame, position) in enumerate(zip(call.frames, call.positions, strict=True)):
        kind = WRONG if frame in wrong else NEW if place >= len(call.frames) - call.new else STORED
        colour, hatch = STYLES[kind]
        axes.broken_barh([(frame - 0.5, 1)], (row - 0.4, 0.8), facecolor=colour, hatch=hatch, edgecolor="black")
        axes.annotate(str(position), (frame, row), **MIDDLE)


@styled
def positions(series: Mapping[str, Call], window: int, title: str) -> Figure:
    """For each call, against how far a key lies back: its RoPE position, and the distance that RoPE encodes."""
    figure, (left, right) = panels(3.8, 1, 2)
    figure.suptitle(fitted(title, figure))
    for (label, call), style in zip(series.items(), ("-", "--", ":", "-."), strict=False):
        true, seen = call.distances(window)
        left.plot(true, [call.positions[-1] - distance for distance in seen], style, label=label, linewidth=1.6)
        right.plot(true, seen, style, linewidth=1.6)
    for axes, words in (
        (left, "position at which the key was rotated"),
        (right, "distance that RoPE encodes (frames)"),
    ):
        axes.set(xlabel="frames that the key lies behind the query", ylabel=words)
        axes.grid()
    legend_below(left, len(series))
    return figure
