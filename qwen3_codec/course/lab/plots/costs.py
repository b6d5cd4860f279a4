"""Figures of time and memory: what a call costs, what a state costs, and who shares a call."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .style import (
    fitted,
    integers,
    label_points,
    legend_below,
    limit_line,
    lines,
    one_panel,
    panels,
    plain_log,
    styled,
)

SHADES = ("//", "\\\\", "..", "xx")


@styled
def call_times(series: Mapping[str, Sequence[float]], chunk: int, chunk_ms: float, title: str) -> Figure:
    """Time of each call in ms, {label: times}, one call after the other, for chunks of `chunk` frames.

    `chunk_ms` is how long the chunk's audio lasts: calls that stay below that line keep up with playing.
    """
    figure, axes = one_panel(3.8, title, xlabel=f"call of {chunk} frames", ylabel="time of the call (ms)")
    for label, times, style in lines(series):
        axes.plot(range(1, len(times) + 1), times, label=label, markersize=5, **style)
    plain_log(axes.yaxis, [chunk_ms, *(time for times in series.values() for time in times)])
    integers(axes.xaxis)
    limit_line(axes, chunk_ms, f"real time: the chunk's audio lasts {chunk_ms:.0f} ms")
    legend_below(axes, columns=3)
    return figure


@styled
def latency(rows: Sequence, title: str) -> Figure:
    """Time until the first sample over the chunk length, one line a design."""
    figure, axes = one_panel(3.8, title, xlabel="frames in a chunk", ylabel="first audio after (ms)")
    for size, (design, chosen, style) in enumerate(lines(_by_design(rows))):
        # Rings of different sizes, so that points in one place are seen to be several.
        axes.plot(*_points(chosen, "chunk", "first_audio_ms"), label=design, markersize=5 + 2 * (size % 4), **style)
    axes.set(ylim=(0, None))
    integers(axes.xaxis)
    legend_below(axes, columns=3)
    return figure


@styled
def latency_of_streams(loads: Sequence, title: str) -> Figure:
    """Latency of a chunk over the number of streams, for each way of making calls: median, and up to 99 of 100 chunks.

    The black line is where a chunk comes as the next one is due: below it the streams are held in real time.
    """
    figure, axes = one_panel(4.4, title, xlabel="streams at once", ylabel="a chunk's latency (ms)")
    kinds = {kind: [load for load in loads if load.calls == kind] for kind in dict.fromkeys(x.calls for x in loads)}
    words, all_times = [], [loads[0].chunk_ms]
    for index, (label, chosen, style) in enumerate(lines(kinds)):
        streams = [load.streams for load in chosen]
        low, middle, high = ([load.percentile(share) for load in chosen] for share in (50, 95, 99))
        (line,) = axes.plot(streams, middle, label=f"{label}: p95; p50 to p99 hatched", **style)
        shade = {"facecolor": "none", "edgecolor": line.get_color(), "hatch": SHADES[index % len(SHADES)]}
        axes.fill_between(streams, low, high, alpha=0.45, linewidth=0, **shade)
        all_times += [*low, *high]
        many = [(load, x, y) for load, x, y in zip(chosen, streams, middle, strict=True) if load.rows_per_call > 1.05]
        words += [(x, y, f"{load.rows_per_call:.1f} rows a call") for load, x, y in many]
    plain_log(axes.yaxis, all_times)
    limit_line(axes, loads[0].chunk_ms, f"real time: the next chunk is due after {loads[0].chunk_ms:.0f} ms")
    _powers_of_two(axes, {load.streams for load in loads})
    legend_below(axes)
    label_points(axes, words)
    return figure


@styled
def throughput(series: Mapping[str, Sequence[tuple[int, float]]], title: str) -> Figure:
    """Time that one frame of one stream costs over the rows that share a call, {label: [(rows, ms)]}."""
    label = "batch rows in a call (N: frames that each row brings)"
    figure, axes = one_panel(3.8, title, xlabel=label, ylabel="ms for one frame of one stream")
    for label, points, style in lines(series):
        axes.plot(*zip(*points, strict=True), label=label, **style)
    _powers_of_two(axes, {rows for points in series.values() for rows, _ in points})
    axes.set(ylim=(0, None))
    legend_below(axes, columns=4)
    return figure


@styled
def offsets(frames: np.ndarray, title: str, most: int = 20) -> Figure:
    """Which streams shared a call, and at which offset: `frames` [streams, calls] before the call, NaN if not in it.

    Streams of one call are joined by a line; the first `most` calls are drawn.
    """
    calls = frames.shape[1]
    shown = "" if calls <= most else f" (the first {most} of {calls})"
    figure, axes = one_panel(1.4 + 0.3 * len(frames), title, xlabel=f"call of the graph{shown}", ylabel="stream")
    for call, column in enumerate(frames.T[:most]):
        rows = np.flatnonzero(~np.isnan(column))
        axes.plot(np.full(len(rows), call), rows, color="0.6", linewidth=3, zorder=1)
        for row in rows:
            box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "black"}
            axes.annotate(f"{column[row]:.0f}", (call, row), ha="center", va="center", bbox=box)
    axes.set(xlim=(-0.7, min(calls, most) - 0.3), ylim=(len(frames) - 0.4, -0.6))
    axes.set_xticks(range(min(calls, most)))
    axes.set_yticks(range(len(frames)))
    axes.plot([], [], color="0.6", linewidth=3, label="one call; in the boxes: frames that the row has seen")
    legend_below(axes)
    return figure


@styled
def cost_against_sound(rows: Sequence, title: str) -> Figure:
    """SNR over compute time for one frame of one stream: one marker a design, its chunk length beside it."""
    figure, axes = one_panel(4.8, title, ylabel="SNR against one-shot in float32 (dB)")
    _cost_against(axes, rows, lambda row: row.snr_db)
    return figure


@styled
def states_along(names: Sequence[str], seconds: Sequence[float], sizes: Sequence[int], title: str) -> Figure:
    """What each layer carries, in the order of the data: how far back in time, and in how many bytes."""
    figure, (left, right) = panels(0.24 * len(names) + 1.6, 1, 2, sharey=True)
    places, largest = range(len(names)), int(np.argmax(sizes))
    share = f"{names[largest]}: {sizes[largest] / sum(sizes):.0%} of the bytes"
    figure.suptitle(fitted(title, figure) + "\n" + fitted(share, figure))
    left.plot([1000 * value for value in seconds], places, "o", color="black")
    left.set(xlabel="reaches back (ms)", ylabel="layer", ylim=(len(names) - 0.4, -0.6))
    left.set_yticks(places, names)
    plain_log(left.xaxis, [1000 * value for value in seconds if value > 0])
    bars = right.barh(places, [size / 1024 for size in sizes], color="#c9b458", edgecolor="black", hatch="//")
    words = [f"{size / 1024:.1f}" if size >= 103 else f"{size / 1024:.2g}" for size in sizes]
    right.bar_label(bars, words, padding=3)
    right.set(xlabel="KiB for one stream", xlim=(0, 1.2 * max(sizes) / 1024))
    for axes in (left, right):
        axes.grid(axis="both" if axes is left else "x")
    return figure


def _cost_against(axes, rows: Sequence, value) -> None:
    """Points of each design, joined from chunk length to chunk length."""
    words = []
    for design, chosen, style in lines(_by_design(rows)):
        chosen = sorted(chosen, key=lambda row: row.chunk)
        cost, found = [row.ms_per_frame for row in chosen], [value(row) for row in chosen]
        axes.plot(cost, found, label=design, alpha=0.8, **style)
        words += [(x, y, f"{row.chunk}") for row, x, y in zip(chosen, cost, found, strict=True)]
    plain_log(axes.xaxis, [row.ms_per_frame for row in rows])
    axes.margins(y=0.12)
    axes.set(xlabel="compute time for one frame (ms); beside a point: frames in a chunk")
    legend_below(axes, columns=3)
    label_points(axes, words)


def _powers_of_two(axes, numbers: set[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(numbers), sorted(numbers))


def _points(rows: Sequence, x: str, y: str) -> tuple[list, list]:
    return [getattr(row, x) for row in rows], [getattr(row, y) for row in rows]


def _by_design(rows: Sequence) -> dict[str, list]:
    return {label: [row for row in rows if row.label == label] for label in dict.fromkeys(r.label for r in rows)}
