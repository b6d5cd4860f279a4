"""Schematic pictures: drawn from the numbers of the loaded checkpoint, so that none can go stale.

As in `plots`, each function takes numbers and returns a figure.
"""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch

from .plots.style import fitted, legend_below, one_panel, panels, plain_log, styled

# What a call does with a frame, and how it is drawn: a colour and a hatch.
KINDS = {
    "recomputed: left context": ("#c9b458", "//"),
    "buffered before, emitted now": ("#8db3e2", ".."),
    "new, emitted now": ("#5b8f5b", ""),
    "buffered": ("#ffffff", "xx"),
}
AGAIN, BEFORE, NEW, HELD = KINDS
BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
MIDDLE = {"ha": "center", "va": "center", "bbox": BOX}


@styled
def calls_see(designs: Mapping[str, Sequence[Mapping[str, tuple[int, int]]]], title: str) -> Figure:
    """What each call works on, one call below the other: a panel for each of `designs`.

    A call is {one of KINDS: (first frame, frames)}.
    """
    height = 1.1 + sum(0.6 + 0.36 * len(calls) for calls in designs.values())
    figure, rows = panels(height, len(designs), sharex=True)
    figure.suptitle(fitted(title, figure))
    for axes, (label, calls) in zip(rows, designs.items(), strict=True):
        for row, call in enumerate(calls):
            _draw_call(axes, row, call)
        axes.set_yticks(range(len(calls)), [f"call {index + 1}" for index in range(len(calls))])
        axes.invert_yaxis()
        axes.set_title(label, loc="left")
        axes.grid(axis="x")
    rows[-1].set_xlabel("frame of the stream (numbers in the bars: frames)")
    used = {kind for calls in designs.values() for call in calls for kind, (_, frames) in call.items() if frames}
    legend_below(rows[-1], 2, [_patch(*KINDS[kind], kind) for kind in KINDS if kind in used])
    return figure


def _draw_call(axes: Axes, row: int, call: Mapping[str, tuple[int, int]]) -> None:
    for kind, (first, frames) in call.items():
        if frames:
            colour, hatch = KINDS[kind]
            style = {"facecolor": colour, "hatch": hatch, "edgecolor": "black", "linewidth": 0.8}
            axes.broken_barh([(first, frames)], (row - 0.4, 0.8), **style)
            axes.annotate(str(frames), (first + frames / 2, row), **MIDDLE)


def windowed_calls(rows: Sequence[tuple[int, int, int, int]]) -> list[dict[str, tuple[int, int]]]:
    """Calls of the windowed design for `calls_see`.

    For each (new, emitted, left context before, buffered before), in frames.
    """
    calls, done = [], 0
    for new, emitted, context, buffered in rows:
        before = min(buffered, emitted)
        calls.append(
            {
                AGAIN: (done - context, context),
                BEFORE: (done, before),
                NEW: (done + before, emitted - before),
                HELD: (done + emitted, buffered + new - emitted),
            }
        )
        done += emitted
    return calls


def exact_calls(lengths: Sequence[int]) -> list[dict[str, tuple[int, int]]]:
    """Calls of the exact design for `calls_see`: nothing is recomputed or buffered."""
    starts = accumulate(lengths, initial=0)
    return [{NEW: (start, new)} for start, new in zip(starts, lengths, strict=False)]


@styled
def step_loop(title: str, chunk: str, state: str, audio: str) -> Figure:
    """A streaming step as a loop: chunk and state go in, audio and next state come out, and that goes in again."""
    figure, (axes,) = panels(2.9)
    figure.suptitle(fitted(title, figure))
    places = (
        (0.15, 0.8, f"chunk\n{chunk}", "#ffffff"),
        (0.15, 0.35, f"state\n{state}", "#e8dfae"),
        (0.5, 0.575, "streaming step\n(one call of the graph)", "#eef3fa"),
        (0.84, 0.8, f"audio\n{audio}", "#ffffff"),
        (0.84, 0.35, "next state\n(same names, same shapes)", "#e8dfae"),
    )
    for x, y, words, colour in places:
        box = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": "black"}
        axes.annotate(words, (x, y), ha="center", va="center", bbox=box, zorder=3)
    arrow = {"arrowstyle": "-|>", "color": "black", "linewidth": 1.4}
    for rise in (0.14, -0.14):
        axes.annotate("", (0.36, 0.575 + rise / 3), (0.26, 0.575 + rise), arrowprops=arrow)
        axes.annotate("", (0.74, 0.575 + rise), (0.64, 0.575 + rise / 3), arrowprops=arrow)
    axes.plot([0.84, 0.84, 0.15], [0.22, 0.07, 0.07], color="black", linewidth=1.4)
    axes.annotate("", (0.15, 0.21), (0.15, 0.06), arrowprops=arrow)
    axes.annotate("goes in with the next chunk", (0.5, 0.07), **MIDDLE)
    axes.set(xlim=(0, 1), ylim=(0, 0.95))
    axes.axis("off")
    return figure


@styled
def memory_line(stages: Sequence, title: str) -> Figure:
    """The codec on one line, from codes to waveform: each stage (`StageMemory`), its rate, and what a stream carries.

    Beside each stage that has a state: how far back it reaches, and its bytes.
    """
    ratios = {"width_ratios": (1.5, 1, 1)}
    figure, (boxes, reach, sizes) = panels(0.31 * len(stages) + 1.5, 1, 3, sharey=True, gridspec_kw=ratios)
    figure.suptitle(fitted(title, figure))
    for place, stage in enumerate(stages):
        shape = {"boxstyle": "round,pad=0.02", "facecolor": "#eef3fa", "edgecolor": "black"}
        boxes.add_patch(FancyBboxPatch((0, place - 0.3), 1, 0.6, **shape))
        count = len(stage.states)
        words = f"{count} state{'s' * (count > 1)}" if count else "no state"
        boxes.annotate(stage.name, (0.5, place), ha="center", va="center")
        boxes.annotate(f"{stage.rate:,g} Hz", (1.08, place), va="center")
        boxes.annotate(words, (-0.08, place), ha="right", va="center")
        if place:
            boxes.annotate("", (0.5, place - 0.28), (0.5, place - 0.72), arrowprops={"arrowstyle": "->"})
    for place, words in ((-0.75, "codes"), (len(stages) - 0.25, "waveform")):
        boxes.annotate(words, (0.5, place), ha="center", va="center", fontstyle="italic")
    boxes.set(xlim=(-0.75, 1.85), ylim=(len(stages), -1), xticks=[], yticks=[])
    boxes.spines[:].set_visible(False)

    kept = [(place, stage) for place, stage in enumerate(stages) if stage.states]
    plain_log(reach.xaxis, [stage.left_context_ms for _, stage in kept])
    low, high = reach.get_xlim()
    reach.set(xlim=(low / 2, 100 * high), xlabel="left context (ms, log scale)")
    reach.set_xticks([tick for tick in (0.1, 10, 1000) if low / 2 <= tick <= 2 * high])
    for place, stage in kept:
        if not stage.left_context_ms:  # a window of one frame: nothing earlier is attended to
            continue
        reach.plot(stage.left_context_ms, place, "o", color="black", markersize=5)
        length = (
            f"{stage.left_context_ms:.3g} ms"
            if stage.left_context_ms < 1000
            else f"{stage.left_context_ms / 1000:.3g} s"
        )
        reach.annotate(length, (stage.left_context_ms, place), (6, 0), textcoords="offset points", va="center")
        bar = sizes.barh(place, stage.bytes / 1024, 0.6, color="#c9b458", edgecolor="black", hatch="//")
        sizes.bar_label(bar, [f"{stage.bytes / 1024:.1f}"], padding=3)
    sizes.set(xlim=(0, 1.35 * max(stage.bytes for _, stage in kept) / 1024), xlabel="KiB of one stream")
    for axes in (reach, sizes):
        axes.grid(axis="x")
    return figure


@styled
def masks(
    shown: Mapping[str, np.ndarray],
    past: int,
    title: str,
    window: int | None = None,
) -> Figure:
    """Masks [N, past + N] side by side: 2 may be attended to, 1 should be and is lost, 0 is hidden.

    `window` is the attention window; by default the cache holds one frame less.
    """
    figure, row = panels(3.8, 1, len(shown), sharey=True)
    figure.suptitle(fitted(title, figure))
    colours, labels = ("#ffffff", "#d62728", "#8db3e2"), ("hidden", "should be attended to, and is lost", "attended to")
    for axes, (label, mask) in zip(row, shown.items(), strict=True):
        queries, last = len(mask), mask.shape[1] - past - 0.5
        extent = (-past - 0.5, last, queries - 0.5, -0.5)
        colour = {"cmap": ListedColormap(colours), "vmin": 0, "vmax": 2}
        axes.imshow(mask, aspect="auto", interpolation="nearest", extent=extent, **colour)
        lost = np.argwhere(mask == 1)
        axes.plot(lost[:, 1] - past, lost[:, 0], "x", color="black", markersize=3, linestyle="none")
        axes.axvline(-0.5, color="black", linewidth=1, linestyle="--")
        edge = np.arange(queries) - (window or past + 1) + 0.5
        axes.stairs(
            edge, np.arange(queries + 1) - 0.5, orientation="horizontal", color="black", linewidth=1.4, baseline=None
        )
        width = int(8 * 72 / len(shown) / 6.5)
        axes.set(title=textwrap.fill(label, width), xlabel="key", xlim=extent[:2], ylim=extent[2:])
    row[0].set_ylabel("query of this call")
    there = sorted({value for mask in shown.values() for value in np.unique(mask)})
    patches = [_patch(colours[value], "", labels[value]) for value in there]
    patches += [
        Line2D([], [], color="black", linestyle="--", label="left: KV cache; right: new keys"),
        Line2D([], [], color="black", label="window edge"),
    ]
    legend_below(row[0], 3, patches)
    return figure


@styled
def overlap(kernel: int, stride: int, inputs: int, border: int, title: str) -> Figure:
    """A transposed convolution laid out in time: each input gives `kernel` samples, one every `stride`.

    A chunk begins at input `border`: what its first samples take from the input before it is hatched.
    """
    label = "output sample (each is the sum of a column, and the bias once)"
    figure, axes = one_panel(0.45 * inputs + 1.9, title, xlabel=label)
    edge = border * stride
    for index in range(inputs):
        start, end = index * stride, index * stride + kernel
        style = {"facecolor": "#8db3e2" if index < border else "#5b8f5b", "edgecolor": "black", "linewidth": 0.8}
        axes.broken_barh([(start, kernel)], (index - 0.35, 0.7), **style)
        if start < edge < end:
            axes.broken_barh([(edge, end - edge)], (index - 0.35, 0.7), hatch="xx", **style)
        axes.annotate(f"input {index}", (start + kernel / 2, index), **MIDDLE)
    axes.axvline(edge, color="black", linestyle="--")
    axes.annotate("a new chunk begins", (edge, -0.62), xytext=(3, 0), textcoords="offset points", va="center")
    axes.set_yticks([])
    axes.set(ylim=(inputs - 0.4, -0.9), xticks=range(0, (inputs - 1) * stride + kernel + 1, stride))
    legend = (
        ("#8db3e2", "", "input of an earlier chunk"),
        ("#8db3e2", "xx", "what it adds to this chunk, and needs its state for"),
        ("#5b8f5b", "", "input of this chunk"),
    )
    legend_below(axes, 3, [_patch(*each) for each in legend])
    return figure


def _patch(colour: str, hatch: str, words: str) -> Patch:
    return Patch(facecolor=colour, hatch=hatch, edgecolor="black", label=words)
