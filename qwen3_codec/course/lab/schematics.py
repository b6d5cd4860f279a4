"""Schematic pictures: drawn from the numbers of the loaded checkpoint, so that none can go stale.

As in `plots`, each function takes numbers and returns a figure.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from .plots import fitted

# What a call does with a frame, and how it is drawn: a colour and a hatch.
KINDS = {
    "recomputed: left context of the convolutions": ("#c9b458", "//"),
    "buffered before, emitted now": ("#8db3e2", ".."),
    "new, emitted now": ("#5b8f5b", ""),
    "new, buffered": ("#ffffff", "xx"),
}
AGAIN, BEFORE, NEW, HELD = KINDS


def calls_see(panels: Mapping[str, Sequence[Mapping[str, tuple[int, int]]]], title: str) -> Figure:
    """What each call works on, a panel for each design: {design: calls}.

    A call is {one of KINDS: (first frame, frames)}; the calls are drawn one below the other.
    """
    most = max(map(len, panels.values()))
    size = {"figsize": (8.5, 1.3 + (0.5 + 0.36 * most) * len(panels)), "layout": "constrained"}
    figure, rows = plt.subplots(len(panels), 1, sharex=True, squeeze=False, **size)
    for axes, (label, calls) in zip(rows[:, 0], panels.items(), strict=True):
        for row, call in enumerate(calls):
            _draw_call(axes, row, call)
        axes.set_yticks(range(len(calls)), [f"call {index + 1}" for index in range(len(calls))])
        axes.invert_yaxis()
        axes.set_title(label, fontsize=10, loc="left")
        axes.grid(alpha=0.3, axis="x")
    axes.set(xlabel="frame of the stream (numbers in the bars: frames)")
    every = [call for calls in panels.values() for call in calls]
    used = [kind for kind in KINDS if any(kind in call and call[kind][1] for call in every)]
    patches = [Patch(facecolor=KINDS[k][0], hatch=KINDS[k][1], edgecolor="black", label=k) for k in used]
    figure.legend(handles=patches, loc="outside lower center", ncols=2, fontsize=9)
    figure.suptitle(fitted(title, figure, 11), fontsize=11)
    return figure


def _draw_call(axes: Axes, row: int, call: Mapping[str, tuple[int, int]]) -> None:
    words = {"ha": "center", "va": "center", "fontsize": 9, "backgroundcolor": "white"}
    for kind, (first, frames) in call.items():
        if frames:
            colour, hatch = KINDS[kind]
            style = {"facecolor": colour, "hatch": hatch, "edgecolor": "black", "linewidth": 0.8}
            axes.broken_barh([(first, frames)], (row - 0.4, 0.8), **style)
            axes.annotate(str(frames), (first + frames / 2, row), **words)


def windowed_calls(rows: Sequence[tuple[int, int, int, int]]) -> list[dict[str, tuple[int, int]]]:
    """Calls of the windowed design for `calls_see`.

    For each (new, finalized, history before, held before), in frames.
    """
    calls, done = [], 0
    for new, finalized, history, held in rows:
        before = min(held, finalized)
        calls.append(
            {
                AGAIN: (done - history, history),
                BEFORE: (done, before),
                NEW: (done + before, finalized - before),
                HELD: (done + finalized, held + new - finalized),
            }
        )
        done += finalized
    return calls


def exact_calls(lengths: Sequence[int]) -> list[dict[str, tuple[int, int]]]:
    """Calls of the exact design for `calls_see`: nothing is recomputed or buffered."""
    starts = accumulate(lengths, initial=0)
    return [{NEW: (start, new)} for start, new in zip(starts, lengths, strict=False)]


def memory_line(stages: Sequence[tuple[str, int, float, int]], title: str) -> Figure:
    """The decoder from left to right.

    (stage, steps a frame, ms that it remembers, states) each, in the order of the data.
    """
    figure, axes = plt.subplots(figsize=(11.5, 3.2), layout="constrained")
    for place, (name, steps, ms, states) in enumerate(stages):
        box = FancyBboxPatch(
            (place - 0.4, 0.55), 0.8, 0.55, boxstyle="round,pad=0.03", facecolor="#eef3fa", edgecolor="black"
        )
        axes.add_patch(box)
        axes.annotate(re.sub(r"([._])", r"\1\n", name, count=1), (place, 0.83), ha="center", va="center", fontsize=7.5)
        axes.annotate(f"×{steps}", (place, 1.2), ha="center", va="bottom", fontsize=8)
        if states:
            height = 0.12 + 0.1 * np.log10(max(ms, 0.01) / 0.01)
            axes.bar(place, height, 0.5, bottom=0.45 - height, color="#c9b458", hatch="//", edgecolor="black")
            length = f"{ms:.3g} ms" if ms < 1000 else f"{ms / 1000:.3g} s"
            words = f"{length}\n{states} state{'s' * (states > 1)}"
            axes.annotate(words, (place, 0.43 - height), ha="center", va="top", fontsize=7.5)
        if place:
            axes.annotate("", (place - 0.42, 0.83), (place - 0.58, 0.83), arrowprops={"arrowstyle": "->"})
    axes.annotate("steps\na frame", (-0.75, 1.2), ha="right", va="bottom", fontsize=8)
    axes.annotate("remembers\n(log scale)", (-0.75, 0.2), ha="right", va="center", fontsize=8)
    axes.set(xlim=(-1.7, len(stages) - 0.4), ylim=(-0.5, 1.5), title=fitted(title, figure))
    axes.axis("off")
    return figure


def masks(panels: Mapping[str, np.ndarray], past: int, title: str) -> Figure:
    """Masks [N, past + N] side by side: 2 may be looked at, 1 should be and is lost, 0 is hidden."""
    figure, row = plt.subplots(1, len(panels), figsize=(11, 3.4), layout="constrained", sharey=True, squeeze=False)
    colours, labels = ("#ffffff", "#d62728", "#4c72b0"), ("hidden", "should be seen, and is lost", "is seen")
    for axes, (label, mask) in zip(row[0], panels.items(), strict=True):
        extent = (-past - 0.5, mask.shape[1] - past - 0.5, mask.shape[0] - 0.5, -0.5)
        axes.imshow(
            mask, cmap=ListedColormap(colours), vmin=0, vmax=2, aspect="auto", interpolation="nearest", extent=extent
        )
        lost = np.argwhere(mask == 1)
        axes.plot(lost[:, 1] - past, lost[:, 0], "x", color="black", markersize=2, linestyle="none")
        axes.axvline(-0.5, color="black", linewidth=0.8, linestyle="--")
        axes.set(title=label, xlabel="key: stored before 0, new from 0 on")
    row[0][0].set_ylabel("query of this call")
    there = {value for mask in panels.values() for value in np.unique(mask)}
    patches = [Patch(facecolor=colours[v], edgecolor="black", label=labels[v]) for v in sorted(there)]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle(fitted(title, figure, 11), fontsize=11)
    return figure


def overlap(kernel: int, stride: int, inputs: int, border: int, title: str) -> Figure:
    """A transposed convolution laid out in time: each input gives `kernel` samples, one every `stride`.

    A chunk begins at input `border`: what its first samples take from the inputs before it is hatched.
    """
    figure, axes = plt.subplots(figsize=(8.5, 0.42 * inputs + 1.9), layout="constrained")
    edge = border * stride
    before, after, across = "#8db3e2", "#5b8f5b", "xx"
    for index in range(inputs):
        start, end = index * stride, index * stride + kernel
        style = {"facecolor": before if index < border else after, "edgecolor": "black", "linewidth": 0.8}
        axes.broken_barh([(start, kernel)], (index - 0.35, 0.7), **style)
        if start < edge < end:
            axes.broken_barh([(edge, end - edge)], (index - 0.35, 0.7), hatch=across, **style)
        middle = {"ha": "center", "va": "center", "fontsize": 9, "backgroundcolor": "white"}
        axes.annotate(f"input {index}", (start + kernel / 2, index), **middle)
    axes.axvline(edge, color="black", linestyle="--")
    words = {"xytext": (3, 0), "textcoords": "offset points", "fontsize": 9, "va": "center"}
    axes.annotate("a new chunk begins", (edge, -0.65), **words)
    axes.set_yticks([])
    axes.set(
        ylim=(inputs - 0.4, -1.0),
        title=fitted(title, figure),
        xlabel="output sample (each is the sum of a column, and the bias once)",
    )
    axes.set_xticks(range(0, (inputs - 1) * stride + kernel + 1, stride))
    axes.grid(alpha=0.4, axis="x")
    looks = {
        "input of an earlier chunk": {"facecolor": before},
        "its part in samples of the new chunk: the state": {"facecolor": before, "hatch": across},
        "input of the new chunk": {"facecolor": after},
    }
    patches = [Patch(edgecolor="black", label=label, **look) for label, look in looks.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def branches(module: Mapping[str, float], graph: Mapping[str, float], title: str, unit: str) -> Figure:
    """A trace that keeps one branch: results for each case, of the module and of its graph, {case: number}."""
    figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
    places = np.arange(len(module))
    for shift, (label, results, hatch) in enumerate((("the module", module, ""), ("its graph", graph, "//"))):
        bars = axes.barh(
            places + 0.4 * shift, [results[case] for case in module], 0.38, label=label, hatch=hatch, alpha=0.8
        )
        axes.bar_label(bars, fmt="%g", fontsize=8, padding=2)
    axes.set_yticks(places + 0.2, module)
    axes.invert_yaxis()
    axes.set(title=fitted(title, figure), xlabel=unit)
    figure.legend(fontsize=8, loc="outside right upper")
    return figure


@dataclass(frozen=True)
class Page:
    """A notebook on the map: its title, the minutes that its words take, the seconds that it ran, exercises in it."""

    name: str
    title: str
    minutes: float
    seconds: float | None
    exercises: int


# Where each notebook stands on the map, by its number, and which comes before it.
PLACES = {1: (0, 0), 2: (1, 0), 3: (2, 0), 4: (3, 0), 5: (3, 1), 6: (2, 1), 7: (1, 1), 11: (0, 1)}
PLACES |= {8: (3, 2), 9: (2, 2), 10: (1, 2), 12: (0, 2)}
WAYS = ((1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (5, 8), (5, 9), (5, 10), (7, 11), (11, 12))


def walkthrough_map(pages: Sequence[Page]) -> Figure:
    """All notebooks, what comes before what, and how long each takes to read and to run."""
    figure, axes = plt.subplots(figsize=(11, 4.6), layout="constrained")
    for page in pages:
        number = int(page.name.split("_")[0])
        x, y = PLACES.get(number, (number % 4, 3))
        colour = "#e5efe0" if page.exercises else "#eef3fa"
        axes.add_patch(
            FancyBboxPatch((x - 0.4, y - 0.3), 0.8, 0.6, boxstyle="round,pad=0.03", facecolor=colour, edgecolor="black")
        )
        times = f"{page.minutes:.0f} min to read" + (f", {page.seconds:.0f} s to run" if page.seconds else "")
        tasks = f"\n{page.exercises} exercise{'s' * (page.exercises > 1)}" if page.exercises else ""
        axes.annotate(textwrap.fill(page.title, 32), (x, y - 0.08), ha="center", va="center", fontsize=8)
        axes.annotate(times + tasks, (x, y + 0.16), ha="center", va="center", fontsize=7)
    there = {int(page.name.split("_")[0]) for page in pages}
    for before, after in (way for way in WAYS if there.issuperset(way)):
        (x0, y0), (x1, y1) = PLACES[before], PLACES[after]
        scale = 0.44 if y0 == y1 else 0.0
        rise = 0.0 if y0 == y1 else 0.35
        start, end = (
            (x0 + np.sign(x1 - x0) * scale, y0 + np.sign(y1 - y0) * rise),
            (x1 - np.sign(x1 - x0) * scale, y1 - np.sign(y1 - y0) * rise),
        )
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.3"})
    rows = max(PLACES.get(int(page.name.split("_")[0]), (0, 3))[1] for page in pages)
    axes.set(xlim=(-0.5, 3.5), ylim=(rows + 0.45, -0.45))
    axes.axis("off")
    return figure
