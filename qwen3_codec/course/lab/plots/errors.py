"""Figures of errors: how large one is, where, and what made it."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .style import error_lines, fitted, integers, legend_below, lines, mark, one_panel, panels, styled

HATCHES = ("", "//", "..", "xx", "--")


@styled
def receptive_field(
    conv: np.ndarray,
    attention: np.ndarray,
    samples_per_frame: int,
    at: int,
    weights: str,
    marks: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {}),
) -> Figure:
    """What one frame moves: `conv` |change| for each sample, `attention` largest |change| for each frame.

    `marks` are what to point at in each of the two, {words: frames after the changed one}.
    """
    figure, (upper, lower) = panels(5.4, 2)
    figure.suptitle(fitted(f"Receptive field, measured in float64 ({weights})", figure))
    frames = np.arange(conv.size) / samples_per_frame - at
    upper.semilogy(frames, _seen(conv), linewidth=0.5, color="black")
    upper.set(
        title="convolutional decoder: one latent frame changed",
        xlabel="frames after the changed one",
        ylabel="|change| of a sample",
        xlim=(frames[0], frames[-1]),
    )
    lower.semilogy(np.arange(attention.size), _seen(attention), linewidth=1, color="black")
    lower.set(
        title="transformer: the codes of one frame changed",
        xlabel="frames after the changed one",
        ylabel="largest |change|",
    )
    for axes, points in zip((upper, lower), marks, strict=True):
        axes.grid()
        for words, place in points.items():
            crowded = place <= 0 or place > 0.6 * axes.get_xlim()[1]  # the curve, or the frame, is at its right
            mark(axes, place, words, side="left" if crowded else "right")
    return figure


@styled
def per_chunk_error(results: Sequence, title: str, limit: float | None = None) -> Figure:
    """MSE of each chunk over its place in the stream, for `verify.PathResult`s."""
    figure, axes = one_panel(3.6, title, xlabel="first frame of the chunk", ylabel="MSE against one-shot")
    series = []
    for result in results:
        rows = [chunk for chunk in result.chunks if chunk.samples]
        label = f"{result.path}, chunks of {','.join(map(str, result.schedule))}"
        series.append((label, ([chunk.start_frame for chunk in rows], [chunk.mse for chunk in rows])))
    error_lines(axes, series, limit)
    return figure


@styled
def error_against_history(series: Mapping[str, Sequence[tuple[int, float]]], reach: int, title: str) -> Figure:
    """MSE over `conv_history_frames`: one line for each entry of `series`; `reach` is the measured receptive field."""
    figure, axes = one_panel(3.8, title, xlabel="frames of left context", ylabel="MSE against one-shot")
    error_lines(axes, [(label, tuple(zip(*points, strict=True))) for label, points in series.items()])
    mark(axes, reach, "receptive field", side="left")
    return figure


@styled
def frame_errors(
    series: Mapping[str, Sequence[float]], title: str, ylabel: str, first: int = 0, limit: float | None = None
) -> Figure:
    """An error for each frame, {label: errors}, on a log scale; `first` is the number of the first frame."""
    figure, axes = one_panel(3.6, title, xlabel="frame", ylabel=ylabel)
    error_lines(axes, [(label, (range(first, first + len(e)), e)) for label, e in series.items()], limit)
    return figure


@styled
def agreement(by_codebook: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Share of equal codes in each codebook, {label: shares}, in percent."""
    figure, axes = one_panel(3.4, title, xlabel="codebook", ylabel="equal codes (%)", ylim=(-2, 102))
    for label, shares, style in lines(by_codebook):
        axes.plot(range(len(shares)), [100 * share for share in shares], label=label, **style)
    integers(axes.xaxis)
    legend_below(axes)
    return figure


@styled
def residual_by_codebook(residual: Sequence[float], snr_db: Mapping[int, float], title: str) -> Figure:
    """What the first codebooks leave: the energy of the latents that is missing, and the SNR of the audio beside it.

    `residual[k - 1]` and `snr_db[k]` are those of the first k codebooks; nothing is left after the last one.
    """
    figure, (left, right) = panels(3.6, 1, 2)
    figure.suptitle(fitted(title, figure))
    left.bar(range(1, len(residual) + 1), [100 * share for share in residual], color="#c9b458", edgecolor="black")
    left.set(ylabel="energy of the vectors\nthat is missing (%)", title="before the decoder")
    right.plot(list(snr_db), list(snr_db.values()), "o-", color="black")
    right.set(ylabel="SNR against all codebooks (dB)", title="after it: the audio")
    for axes in (left, right):
        integers(axes.xaxis)
        axes.set(xlabel="codebooks used", xlim=(0.4, len(residual) + 0.6))
        axes.grid(axis="y")
    return figure


@styled
def state_worth(series: Mapping[str, Mapping[str, float]], title: str, longest: float = 60.0) -> Figure:
    """SNR in dB for each wrong state, {weights: {what is wrong: dB}}: one bar for each pair.

    A bar of more than `longest` dB is cut, so that the short ones, which matter, can be told apart.
    """
    height, names = 0.8 / len(series), list(next(iter(series.values())))
    label = "SNR against one-shot (dB); lower is a larger error"
    figure, axes = one_panel(
        1.4 + 0.3 * len(names) * (1 + len(series) / 2), title, xlabel=label, ylabel="what is wrong"
    )
    short = [value for values in series.values() for value in values.values() if value <= longest]
    end = 1.2 * max(short, default=longest)
    for index, (weights, values) in enumerate(series.items()):
        places = np.arange(len(names)) + index * height
        found = [values[name] for name in names]
        lengths = np.minimum(found, end)
        bars = axes.barh(places, lengths, height, label=weights, hatch=HATCHES[index % len(HATCHES)], alpha=0.6)
        words = [f"{value:.1f}" if value < end else f"{value:.0f}: longer than the axis" for value in found]
        for bar, text, value in zip(bars, words, found, strict=True):
            x, offset, align = (value, 3, "left") if value < end else (end, -6, "right")
            middle = (x, bar.get_y() + height / 2)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5} if value >= end else None
            place = {"textcoords": "offset points", "ha": align, "va": "center"}
            axes.annotate(text, middle, xytext=(offset, 0), bbox=box, **place)
    axes.set_yticks(np.arange(len(names)) + 0.4 - height / 2, names)
    axes.set(xlim=(min(0.0, *short), end))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    legend_below(axes)
    return figure


@styled
def sensitivity(rows: Sequence, title: str) -> Figure:
    """SNR if one kind of layer alone is in int8: in the order of the data, and in the order of size."""
    figure, axes = panels(0.3 * len(rows) + 1.7, 1, 2, sharex=True)
    figure.suptitle(fitted(title, figure))
    markers = dict(zip(dict.fromkeys(row.product for row in rows), "os^D", strict=False))
    orders = {"in the order of the data": rows, "in the order of size": sorted(rows, key=lambda row: row.snr_db)}
    for panel, (words, ordered) in zip(axes, orders.items(), strict=True):
        for product, marker in markers.items():
            chosen = [(row.snr_db, place) for place, row in enumerate(ordered) if row.product == product]
            label = f"in the int8 graph: {product}"
            panel.plot(*zip(*chosen, strict=True), marker, label=label, markersize=7, fillstyle="none")
        for place, row in enumerate(ordered):
            panel.annotate(f"{row.snr_db:.1f}", (row.snr_db, place), (7, 0), textcoords="offset points", va="center")
        panel.set_yticks(range(len(ordered)), [row.name for row in ordered])
        panel.set(title=words, xlabel="SNR against float32 (dB)", ylim=(len(ordered) - 0.5, -0.5))
        panel.grid()
    axes[0].set_ylabel("kind of layer")
    axes[0].margins(x=0.25)
    legend_below(axes[0])
    return figure


def _seen(values: np.ndarray) -> np.ndarray:
    """Values that a log axis can show: zeros are left out."""
    return np.where(values == 0, np.nan, values)
