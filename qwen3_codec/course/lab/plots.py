"""Figures and tables of the notebooks: each function takes numbers, returns a figure, computes nothing."""

import base64
import html
import io
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import mlab
from matplotlib.figure import Figure

# Notebooks find these beside the figures.
from .display import player, progress, table  # noqa: F401

# Lines are told apart by marker and dash as well as by colour: 7 markers and 4 dashes make 28 pairs.
MARKERS = "os^Dvx*"
DASHES = ("-", "--", ":", "-.")
# Below this a float32 waveform of ordinary loudness says nothing: an error of 0 is drawn here on a log axis.
FLOOR = 1e-16


def fitted(title: str, figure: Figure, size: int = 12) -> str:
    """A title in as many lines as it needs: a letter is about half as wide as its size in points."""
    return textwrap.fill(title, int(figure.get_figwidth() * 72 / (0.55 * size)))


def receptive_field(conv: np.ndarray, attention: np.ndarray, samples_per_frame: int, at: int, weights: str) -> Figure:
    """What one frame moves: `conv` |change| for each sample, `attention` largest |change| for each frame."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
    frames = np.arange(conv.size) / samples_per_frame - at
    left.semilogy(frames, np.maximum(conv, FLOOR), linewidth=0.5)
    left.set(
        title="Conv stack: one latent frame changed",
        xlabel="frames after the changed one",
        ylabel="|change| of a sample",
    )
    right.semilogy(np.arange(attention.size), np.maximum(attention, FLOOR), linewidth=0.9)
    right.set(
        title="Transformer: one frame's codes changed", xlabel="frames after the changed one", ylabel="largest |change|"
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(f"Receptive field, measured in float64 ({weights}; {FLOOR:.0e} is silence)", fontsize=10)
    return figure


def waveforms(
    reference: np.ndarray,
    test: np.ndarray,
    sample_rate: int,
    title: str,
    borders: Sequence[int] = (),
    labels: tuple[str, str] = ("one-shot", "streamed"),
) -> Figure:
    """`reference` and `test` [samples] over each other, and their difference; `borders` are chunk starts in samples.

    `labels` say what the two are, in the legend and on the axis of their difference.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 4.4), sharex=True, layout="constrained")
    seconds = np.arange(reference.size) / sample_rate
    top.plot(seconds, reference, linewidth=2.2, color="lightsteelblue", label=labels[0])
    top.plot(seconds, test, linewidth=0.6, color="black", label=labels[1])
    top.set(title=fitted(title, figure), ylabel="amplitude")
    top.legend(loc="upper right")
    bottom.plot(seconds, test - reference, linewidth=0.6, color="black")
    bottom.set(xlabel="time (s)", ylabel=f"{labels[1]} − {labels[0]}")
    for border in borders:
        bottom.axvline(border / sample_rate, color="tab:red", linewidth=0.8, linestyle=":")
    return figure


def per_chunk_error(results: Sequence, title: str, limit: float | None = None) -> Figure:
    """MSE of each chunk over its place in the stream, for `verify.PathResult`s."""
    figure, axes = plt.subplots(figsize=(11, 3.4), layout="constrained")
    labels = [f"{result.path}, chunks of {','.join(map(str, result.schedule))}" for result in results]
    for label, result, style in _lines(labels, results):
        rows = [chunk for chunk in result.chunks if chunk.samples]
        values = [max(chunk.mse, FLOOR) for chunk in rows]
        axes.semilogy([chunk.start_frame for chunk in rows], values, label=label, markersize=3, linewidth=0.8, **style)
    if limit:
        axes.axhline(limit, color="black", linewidth=0.8)
        axes.annotate(f"limit {limit:.0e}", (0, limit), textcoords="offset points", xytext=(2, -10), fontsize=8)
    axes.set(title=fitted(title, figure), xlabel="first frame of the chunk", ylabel="MSE against one-shot")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def error_against_history(series: Mapping[str, Sequence[tuple[int, float]]], reach: int, title: str) -> Figure:
    """MSE over `conv_history_frames`: one line for each entry of `series`; `reach` is the measured receptive field."""
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for label, points, style in _lines(series, series.values()):
        history, errors = zip(*points, strict=True)
        axes.semilogy(history, np.maximum(errors, FLOOR), label=label, **style)
    axes.axvline(reach, color="black", linewidth=0.8, linestyle=":")
    axes.annotate(
        "receptive field", (reach, 1), xycoords=("data", "axes fraction"), xytext=(3, -12), textcoords="offset points"
    )
    axes.set(title=fitted(title, figure), xlabel="conv_history_frames", ylabel="MSE against one-shot")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def node_histogram(nodes: Mapping[str, int], title: str, most: int = 20) -> Figure:
    """How many nodes of each kind a graph has, the `most` frequent kinds."""
    names, counts = zip(*list(nodes.items())[:most], strict=True)
    figure, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
    bars = axes.barh(names[::-1], counts[::-1])
    axes.bar_label(bars, fontsize=7, padding=2)
    axes.set(title=fitted(title, figure), xlabel="nodes", ylabel="operator")
    return figure


def states_along(names: Sequence[str], seconds: Sequence[float], sizes: Sequence[int], title: str) -> Figure:
    """What each layer remembers, in the order of the data: how far back in time, and in how many bytes."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 6), sharey=True, layout="constrained")
    left.barh(names, [1000 * value for value in seconds])
    left.set(xscale="log", xlabel="time that it reaches back (ms)", ylabel="layer")
    right.barh(names, sizes, color="tab:orange", hatch="//")
    right.set(xscale="log", xlabel="bytes for one stream")
    left.invert_yaxis()
    for axes in (left, right):
        axes.tick_params(axis="y", labelsize=7)
        axes.grid(alpha=0.3, axis="x")
    figure.suptitle(fitted(title, figure, 11), fontsize=11)
    return figure


def call_times(series: Mapping[str, Sequence[float]], chunk: int, chunk_ms: float, title: str) -> Figure:
    """Time of each call in ms over its place in the stream, {label: times} for chunks of `chunk` frames.

    `chunk_ms` is how long the chunk's audio lasts: calls that stay below that line keep up with playing.
    """
    figure, axes = plt.subplots(figsize=(11, 3.4), layout="constrained")
    for label, times, style in _lines(series, series.values()):
        starts = [index * chunk for index in range(len(times))]
        axes.semilogy(starts, times, label=label, markersize=3, linewidth=0.8, **style)
    axes.axhline(chunk_ms, color="black", linewidth=0.8)
    words = f"real time: the chunk's audio lasts {chunk_ms:.0f} ms"
    axes.annotate(words, (0, chunk_ms), textcoords="offset points", xytext=(2, -10), fontsize=8)
    axes.set(title=fitted(title, figure), xlabel="first frame of the chunk", ylabel="time of the call (ms)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def latency(rows: Sequence, title: str) -> Figure:
    """Time until the first sample over the chunk length, one line a design."""
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for design, chosen, style in _lines(*_by_design(rows)):
        points = [(row.chunk, row.first_audio_ms) for row in chosen]
        axes.plot(*zip(*points, strict=True), label=design, **style)
    axes.set(title=fitted(title, figure), xlabel="frames in a chunk", ylabel="first audio after (ms)", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def latency_of_streams(loads: Sequence, title: str) -> Figure:
    """Latency of a chunk over the number of streams, for each way of making calls: median, and up to 99 of 100 chunks.

    The black line is where a chunk comes as the next one is due: below it the streams are held in real time.
    """
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    kinds = list(dict.fromkeys(load.calls for load in loads))
    for label, chosen, style in _lines(kinds, ([load for load in loads if load.calls == kind] for kind in kinds)):
        streams = [load.streams for load in chosen]
        low, middle, high = ([load.percentile(share) for load in chosen] for share in (50, 95, 99))
        (line,) = axes.plot(streams, middle, label=f"{label}: p95, p50 to p99 shaded", **style)
        axes.fill_between(streams, low, high, alpha=0.15, color=line.get_color())
        for load, x, y in zip(chosen, streams, middle, strict=True):
            if load.rows_per_call > 1.05:
                rows = f"{load.rows_per_call:.1f} rows a call"
                axes.annotate(rows, (x, y), textcoords="offset points", xytext=(5, -10), fontsize=7)
    axes.axhline(loads[0].chunk_ms, color="black", linewidth=0.8)
    words = f"real time: the next chunk is due after {loads[0].chunk_ms:.0f} ms"
    axes.annotate(
        words,
        (0.01, loads[0].chunk_ms),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8,
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({load.streams for load in loads})
    axes.set_xticks(ticks, ticks)
    axes.set(title=fitted(title, figure), xlabel="streams at once", ylabel="a chunk's latency (ms)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def throughput(series: Mapping[str, Sequence[tuple[int, float]]], title: str) -> Figure:
    """Time that one frame of one stream costs over the rows that share a call, {label: [(rows, ms)]}."""
    figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
    for label, points, style in _lines(series, series.values()):
        axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.set_xscale("log", base=2)
    ticks = sorted({rows for points in series.values() for rows, _ in points})
    axes.set_xticks(ticks, ticks)
    axes.set(
        title=fitted(title, figure), xlabel="rows in a call", ylabel="ms for one frame of one stream", ylim=(0, None)
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def offsets(frames: np.ndarray, title: str) -> Figure:
    """Which stream was in which call, at which offset: `frames` [streams, calls] before the call, NaN if not in it."""
    streams, calls = frames.shape
    figure, axes = plt.subplots(figsize=(min(14, 2 + 0.42 * calls), 1.4 + 0.28 * streams), layout="constrained")
    image = axes.imshow(frames, aspect="auto", cmap="cividis")
    middle = np.nanmax(frames) / 2
    for (row, call), offset in np.ndenumerate(frames):
        if not np.isnan(offset):
            colour = "black" if offset > middle else "white"
            axes.annotate(f"{offset:.0f}", (call, row), ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes, label="frames that the row has seen")
    axes.set_xticks(range(calls), range(calls), fontsize=7)
    axes.set_yticks(range(streams), range(streams), fontsize=7)
    axes.set(title=fitted(title, figure), xlabel="call of the graph", ylabel="stream")
    return figure


def error_against_cost(rows: Sequence, title: str) -> Figure:
    """Largest error over compute time for one frame: one marker a design and chunk length, which stands beside it."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for design, chosen, style in _lines(*_by_design(rows)):
        cost, error = [row.ms_per_frame for row in chosen], [max(row.max_error, FLOOR) for row in chosen]
        axes.loglog(cost, error, label=design, marker=style["marker"], linestyle="none")
        for row, x, y in zip(chosen, cost, error, strict=True):
            axes.annotate(f"N={row.chunk}", (x, y), textcoords="offset points", xytext=(5, 3), fontsize=7)
    axes.set(
        title=fitted(title, figure), xlabel="compute time for one frame (ms)", ylabel="largest error against one-shot"
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def cost_against_sound(rows: Sequence, title: str) -> Figure:
    """SNR over compute time for one frame of one stream: one marker a design, its chunk length beside it."""
    figure, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
    for design, chosen, style in _lines(*_by_design(rows)):
        cost, sound = [row.ms_per_frame for row in chosen], [row.snr_db for row in chosen]
        axes.semilogx(cost, sound, label=design, marker=style["marker"], linestyle="none")
        for place, (row, x, y) in enumerate(zip(chosen, cost, sound, strict=True)):
            offset = (5, 3 if place % 2 == 0 else -9)  # above and below in turn: neighbours may be close
            axes.annotate(f"N={row.chunk}", (x, y), textcoords="offset points", xytext=offset, fontsize=7)
    axes.set(
        title=fitted(title, figure),
        xlabel="compute time for one frame (ms)",
        ylabel="SNR against one-shot in float32 (dB)",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def sensitivity(rows: Sequence, title: str) -> Figure:
    """SNR where one kind of layer alone has 8 bits: a bar a kind, in the order of the data, hatched by treatment."""
    figure, axes = plt.subplots(figsize=(9, 0.32 * len(rows) + 1.4), layout="constrained")
    hatches = dict(zip(dict.fromkeys(row.product for row in rows), ("", "//", "..", "xx"), strict=False))
    for product, hatch in hatches.items():
        places = [place for place, row in enumerate(rows) if row.product == product]
        values = [rows[place].snr_db for place in places]
        bars = axes.barh(places, values, 0.8, label=f"in the int8 graph: {product}", hatch=hatch, alpha=0.8)
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.set(
        title=fitted(title, figure),
        xlabel="SNR against float32 (dB) where this kind alone is in 8 bits; lower hurts more",
        ylabel="kind of layer",
    )
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    axes.grid(alpha=0.3, axis="x")
    return figure


def state_worth(series: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """SNR in dB for each wrong state, {weights: {what is wrong: dB}}: one bar for each pair."""
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    height, hatches = 0.8 / len(series), ("", "//", "..", "xx", "--")
    names = list(next(iter(series.values())))
    for index, (label, values) in enumerate(series.items()):
        places = np.arange(len(names)) + index * height
        bars = axes.barh(
            places,
            [values[name] for name in names],
            height,
            label=label,
            hatch=hatches[index % len(hatches)],
            alpha=0.8,
        )
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    axes.set_yticks(np.arange(len(names)) + 0.4 - height / 2, names)
    axes.invert_yaxis()
    axes.set(
        title=fitted(title, figure), xlabel="SNR against one-shot (dB); lower is louder damage", ylabel="what is wrong"
    )
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, axis="x")
    return figure


def stream_error(
    reference: np.ndarray,
    streamed: np.ndarray,
    sample_rate: int,
    lengths: Sequence[int],
    chunk_mse: Sequence[float],
    title: str,
    limit: float,
) -> Figure:
    """`streamed` against `reference` [samples]: both, the difference, MSE by call, its spectrogram.

    `lengths` are the samples of each call. The scales of the last two panels are fixed, so that figures compare.
    """
    # Margins are given, not found: a constrained layout would double the time of drawing, and the lab draws often.
    margins = {"left": 0.08, "right": 0.91, "top": 0.91, "bottom": 0.07, "hspace": 0.16}
    figure, axes = plt.subplots(4, 1, figsize=(10, 7), sharex=True, gridspec_kw=margins)
    waves, apart, errors, pitch = axes
    seconds = np.arange(reference.size) / sample_rate
    waves.plot(seconds, reference, linewidth=2.2, color="lightsteelblue", label="one-shot")
    waves.plot(seconds, streamed, linewidth=0.6, color="black", label="streamed")
    waves.set(ylabel="amplitude")
    waves.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, fontsize=8, ncols=2, frameon=False)
    figure.suptitle(fitted(title, figure, 10), fontsize=10)

    apart.plot(seconds, streamed - reference, linewidth=0.6, color="black")
    apart.set(ylabel="difference")

    edges = np.cumsum([0, *lengths]) / sample_rate
    heard = np.flatnonzero(lengths)  # a call that held everything back has no samples to be wrong
    errors.stairs(np.maximum(chunk_mse, FLOOR)[heard], [*edges[heard], edges[-1]], color="black", baseline=None)
    errors.axhline(limit, color="tab:red", linewidth=0.8, linestyle="--")
    words = f"limit where a design is exact, {limit:.0e}"
    errors.annotate(words, (0, limit), textcoords="offset points", xytext=(4, 3), fontsize=8)
    errors.set(yscale="log", ylim=(FLOOR / 3, 1), ylabel="MSE of a chunk")

    image = pitch.imshow(
        _decibels(streamed - reference, sample_rate),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, seconds.size / sample_rate, 0, sample_rate / 2000),
        vmin=-140,
        vmax=-40,
    )
    pitch.set(ylabel="difference at (kHz)", xlabel="time (s); dotted: where the samples of a call begin")
    figure.colorbar(image, cax=pitch.inset_axes((1.01, 0, 0.012, 1)), label="dB per Hz")
    for panel in (waves, apart, errors):
        panel.vlines(
            edges[1:-1], 0, 1, transform=panel.get_xaxis_transform(), linewidth=0.6, linestyle=":", color="0.5"
        )
    return figure


def as_html(figure: Figure, alt: str) -> str:
    """A figure as an <img> with its picture inside; the figure is closed."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90)
    plt.close(figure)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{html.escape(alt, quote=True)}" style="max-width: 100%" src="data:image/png;base64,{data}">'


def _lines(labels: Iterable[str], values: Iterable) -> Iterator[tuple[str, object, dict[str, str]]]:
    """Each series with its label and its style. A label that was there before gets a number: each line has its own."""
    seen: dict[str, int] = {}
    for label, value, marker, dash in zip(labels, values, cycle(MARKERS), cycle(DASHES), strict=False):
        seen[label] = seen.get(label, 0) + 1
        name = label if seen[label] == 1 else f"{label} ({seen[label]})"
        yield name, value, {"marker": marker, "linestyle": dash}


def _by_design(rows: Sequence) -> tuple[list[str], list[list]]:
    designs = list(dict.fromkeys(row.design for row in rows))
    return designs, [[row for row in rows if row.design == design] for design in designs]


def _decibels(signal: np.ndarray, sample_rate: int, window: int = 512) -> np.ndarray:
    """Power density in dB of a waveform [samples], [frequencies, times]."""
    spectrum, _, _ = mlab.specgram(signal, NFFT=window, Fs=sample_rate, noverlap=0)
    return 10 * np.log10(np.maximum(spectrum, FLOOR))


def codes(found: np.ndarray, frame_seconds: float, title: str, wanted: np.ndarray | None = None) -> Figure:
    """Codes [N, Q] as an image, codebook over time; below it the places that differ from `wanted`, where given."""
    rows = 1 if wanted is None else 2
    size = {"figsize": (11, 2.2 * rows + 0.6), "layout": "constrained"}
    figure, panels = plt.subplots(rows, 1, sharex=True, squeeze=False, **size)
    extent = (0, len(found) * frame_seconds, found.shape[1] - 0.5, -0.5)
    image = panels[0, 0].imshow(found.T, aspect="auto", interpolation="nearest", extent=extent)
    figure.colorbar(image, cax=panels[0, 0].inset_axes((1.01, 0, 0.012, 1)), label="code")
    panels[0, 0].set(title=fitted(title, figure), ylabel="codebook")
    if wanted is not None:
        apart = (found != wanted).T
        panels[1, 0].imshow(apart, aspect="auto", interpolation="nearest", extent=extent, cmap="gray_r", vmin=0, vmax=1)
        panels[1, 0].set(title=f"places that differ (black): {apart.sum()} of {apart.size}", ylabel="codebook")
    panels[-1, 0].set(xlabel="time (s)")
    return figure


def frame_errors(series: Mapping[str, Sequence[float]], title: str, ylabel: str, first: int = 0) -> Figure:
    """An error for each frame, {label: errors}, on a log scale; `first` is the number of the first frame."""
    figure, axes = plt.subplots(figsize=(9, 3.2), layout="constrained")
    for label, errors, style in _lines(series, series.values()):
        axes.semilogy(np.arange(first, first + len(errors)), np.maximum(errors, FLOOR), label=label, **style)
    axes.set(title=fitted(title, figure), xlabel="frame", ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def agreement(by_codebook: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Share of equal codes in each codebook, {label: shares}, in percent."""
    figure, axes = plt.subplots(figsize=(9, 3.2), layout="constrained")
    for label, shares, style in _lines(by_codebook, by_codebook.values()):
        axes.plot(range(len(shares)), [100 * share for share in shares], label=label, **style)
    axes.set(title=fitted(title, figure), xlabel="codebook", ylabel="equal codes (%)")
    axes.set_ylim(top=101)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
