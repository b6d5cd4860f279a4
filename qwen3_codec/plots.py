"""Figures and tables of the notebooks: each function takes numbers, returns a figure, computes nothing."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

# Told apart by marker and dash as well as by colour.
STYLES = [
    {"marker": "o", "linestyle": "-"},
    {"marker": "s", "linestyle": "--"},
    {"marker": "^", "linestyle": ":"},
    {"marker": "D", "linestyle": "-."},
    {"marker": "v", "linestyle": "-"},
    {"marker": "x", "linestyle": "--"},
]
# Below this a float32 waveform of ordinary loudness says nothing: an error of 0 is drawn here on a log axis.
FLOOR = 1e-16


def table(headers: Sequence[str], rows: Sequence[Sequence]):
    """A table that Jupyter shows as one (Markdown)."""
    from IPython.display import Markdown

    lines = [headers, ["---"] * len(headers), *rows]
    return Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))


def player(waveform: np.ndarray, sample_rate: int, seconds: float = 3.0, start: float = 0.0):
    """An audio player of at most 5 s of a waveform [samples] or [1, samples], at its own loudness."""
    from IPython.display import Audio

    first = int(start * sample_rate)
    return Audio(
        waveform.reshape(-1)[first : first + int(min(seconds, 5.0) * sample_rate)], rate=sample_rate, normalize=False
    )


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
    reference: np.ndarray, test: np.ndarray, sample_rate: int, title: str, borders: Sequence[int] = ()
) -> Figure:
    """`reference` and `test` [samples] over each other, and their difference; `borders` are chunk starts in samples."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 4.4), sharex=True, layout="constrained")
    seconds = np.arange(reference.size) / sample_rate
    top.plot(seconds, reference, linewidth=2.2, color="lightsteelblue", label="one-shot")
    top.plot(seconds, test, linewidth=0.6, color="black", label="streamed")
    top.set(title=title, ylabel="amplitude")
    top.legend(loc="upper right")
    bottom.plot(seconds, test - reference, linewidth=0.6, color="black")
    bottom.set(xlabel="time (s)", ylabel="streamed − one-shot")
    for border in borders:
        bottom.axvline(border / sample_rate, color="tab:red", linewidth=0.8, linestyle=":")
    return figure


def per_chunk_error(results: Sequence, title: str, limit: float | None = None) -> Figure:
    """MSE of each chunk over its place in the stream, for `verify.PathResult`s."""
    figure, axes = plt.subplots(figsize=(11, 3.4), layout="constrained")
    for result, style in zip(results, STYLES, strict=False):
        rows = [chunk for chunk in result.chunks if chunk.samples]
        label = f"{result.path}, chunks of {','.join(map(str, result.schedule))}"
        values = [max(chunk.mse, FLOOR) for chunk in rows]
        axes.semilogy([chunk.start_frame for chunk in rows], values, label=label, markersize=3, linewidth=0.8, **style)
    if limit:
        axes.axhline(limit, color="black", linewidth=0.8)
        axes.annotate(f"limit {limit:.0e}", (0, limit), textcoords="offset points", xytext=(2, 3), fontsize=8)
    axes.set(title=title, xlabel="first frame of the chunk", ylabel="MSE against one-shot")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def error_against_history(series: Mapping[str, Sequence[tuple[int, float]]], reach: int, title: str) -> Figure:
    """MSE over `conv_history_frames`: one line for each entry of `series`; `reach` is the measured receptive field."""
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for (label, points), style in zip(series.items(), STYLES, strict=False):
        history, errors = zip(*points, strict=True)
        axes.semilogy(history, np.maximum(errors, FLOOR), label=label, **style)
    axes.axvline(reach, color="black", linewidth=0.8, linestyle=":")
    axes.annotate(
        "receptive field", (reach, 1), xycoords=("data", "axes fraction"), xytext=(3, -12), textcoords="offset points"
    )
    axes.set(title=title, xlabel="conv_history_frames", ylabel="MSE against one-shot")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def node_histogram(nodes: Mapping[str, int], title: str, most: int = 20) -> Figure:
    """How many nodes of each kind a graph has, the `most` frequent kinds."""
    names, counts = zip(*list(nodes.items())[:most], strict=True)
    figure, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
    bars = axes.barh(names[::-1], counts[::-1])
    axes.bar_label(bars, fontsize=7, padding=2)
    axes.set(title=title, xlabel="nodes", ylabel="operator")
    return figure


def seconds_per_chunk(results: Sequence, sample_rate: int, samples_per_frame: int, title: str) -> Figure:
    """Compute time of each call over its place in the stream, and the time that the chunk's audio lasts."""
    figure, axes = plt.subplots(figsize=(11, 3.4), layout="constrained")
    for result, style in zip(results, STYLES, strict=False):
        starts = [chunk.start_frame for chunk in result.chunks]
        times = [1000 * chunk.seconds for chunk in result.chunks]
        axes.semilogy(
            starts, times, label=f"{result.path} ({result.realtime_factor:.2f} × real time)", markersize=3, **style
        )
    audio = 1000 * results[0].schedule[0] * samples_per_frame / sample_rate
    axes.axhline(audio, color="black", linewidth=0.8)
    axes.annotate(
        f"the chunk's audio lasts {audio:.0f} ms", (0, audio), textcoords="offset points", xytext=(2, 3), fontsize=8
    )
    axes.set(title=title, xlabel="first frame of the chunk", ylabel="time of the call (ms)")
    axes.grid(alpha=0.3)
    axes.legend()
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
    figure.suptitle(title, fontsize=11)
    return figure


def call_times(rows: Sequence, chunk: int, frame_ms: float, title: str) -> Figure:
    """Time of each call over its place in the stream, for `bench.Row`s of one chunk length."""
    figure, axes = plt.subplots(figsize=(11, 3.4), layout="constrained")
    for row, style in zip([row for row in rows if row.chunk == chunk], STYLES, strict=False):
        starts = [index * chunk for index in range(len(row.call_ms))]
        axes.semilogy(starts, row.call_ms, label=row.design, markersize=3, linewidth=0.8, **style)
    axes.axhline(chunk * frame_ms, color="black", linewidth=0.8)
    axes.annotate("real time", (0, chunk * frame_ms), textcoords="offset points", xytext=(2, 3), fontsize=8)
    axes.set(title=title, xlabel="first frame of the chunk", ylabel="time of the call (ms)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def latency(rows: Sequence, title: str) -> Figure:
    """Time until the first sample over the chunk length, one line a design."""
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for design, style in zip(dict.fromkeys(row.design for row in rows), STYLES, strict=False):
        points = [(row.chunk, row.first_audio_ms) for row in rows if row.design == design]
        axes.plot(*zip(*points, strict=True), label=design, **style)
    axes.set(title=title, xlabel="frames in a chunk", ylabel="first audio after (ms)", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def error_against_cost(rows: Sequence, title: str) -> Figure:
    """Largest error over compute time for one frame: one marker a design and chunk length, which stands beside it."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for design, style in zip(dict.fromkeys(row.design for row in rows), STYLES, strict=False):
        chosen = [row for row in rows if row.design == design]
        cost, error = [row.ms_per_frame for row in chosen], [max(row.max_error, FLOOR) for row in chosen]
        axes.loglog(cost, error, label=design, marker=style["marker"], linestyle="none")
        for row, x, y in zip(chosen, cost, error, strict=True):
            axes.annotate(f"N={row.chunk}", (x, y), textcoords="offset points", xytext=(5, 3), fontsize=7)
    axes.set(title=title, xlabel="compute time for one frame (ms)", ylabel="largest error against one-shot")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def state_worth(series: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """SNR in dB for each wrong state, {weights: {what is wrong: dB}}: one bar for each pair."""
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    height, hatches = 0.8 / len(series), ["", "//", ".."]
    names = list(next(iter(series.values())))
    for index, (label, values) in enumerate(series.items()):
        places = np.arange(len(names)) + index * height
        bars = axes.barh(places, [values[name] for name in names], height, label=label, hatch=hatches[index], alpha=0.8)
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    axes.set_yticks(np.arange(len(names)) + 0.4 - height / 2, names)
    axes.invert_yaxis()
    axes.set(title=title, xlabel="SNR against one-shot (dB); lower is louder damage", ylabel="what is wrong")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, axis="x")
    return figure
